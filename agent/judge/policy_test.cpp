#include <filesystem>
#include <fstream>
#include <set>

#include <gtest/gtest.h>

#include "agent/judge/builtin_policy.hpp"
#include "agent/judge/explain.hpp"
#include "agent/judge/judge.hpp"
#include "agent/judge/xid_catalogue.hpp"

namespace pitcrew::agent {
namespace {

using api::HealthAction;
using api::HealthSeverity;

Observation xid(uint32_t code, std::string id = "") {
  Observation event;
  event.kind = kinds::kXid;
  event.code = code;
  event.device = "A";
  event.id = std::move(id);
  event.time = Instant(seconds(1'700'000'000));
  return event;
}

std::vector<Verdict> verdicts_of(const Observation& event) {
  const Observation events[] = {event};
  return judge(events, builtin_policy(), {}, event.time).verdicts();
}

TEST(BuiltinPolicy, gives_every_rule_a_source_and_every_xid_a_rule) {
  for (const auto& rule : builtin_policy().rules) EXPECT_FALSE(rule.source.empty()) << rule.name;
  for (uint32_t code = 1; code <= kLastXid + 50; ++code) {
    size_t rules = 0;
    for (const auto& rule : builtin_policy().rules) rules += rule.about("xid", code);
    EXPECT_GE(rules, 1u) << "XID " << code;
  }
}

// The classes of NVIDIA's catalogue, written down a second time: a code that wanders to another rule is noticed.
TEST(BuiltinPolicy, does_what_nvidias_catalogue_says_at_once) {
  for (const XidEntry& entry : xid_catalogue()) {
    const auto verdicts = verdicts_of(xid(entry.code));
    const auto worst = verdicts.empty() ? HealthSeverity::kInfo : verdicts[0].severity;
    const auto action = verdicts.empty() ? HealthAction::kNone : verdicts[0].action;
    switch (entry.resolution) {
      case Resolution::kUnused:
        EXPECT_EQ(worst, HealthSeverity::kWarning) << entry.code;
        EXPECT_EQ(action, HealthAction::kNone) << entry.code;
        break;
      case Resolution::kIgnore:
        EXPECT_NE(worst, HealthSeverity::kFault) << entry.code;
        break;
      case Resolution::kRestartApp:
        EXPECT_EQ(worst, HealthSeverity::kWarning) << entry.code;
        EXPECT_EQ(action, HealthAction::kRestart) << entry.code;
        break;
      case Resolution::kResetGpu:
        EXPECT_EQ(worst, HealthSeverity::kFault) << entry.code;
        EXPECT_EQ(action, HealthAction::kReset) << entry.code;
        break;
      case Resolution::kRestartVm:
      case Resolution::kRestartMachine:
      case Resolution::kCheckMechanicals:
      case Resolution::kContactSupport:
        EXPECT_EQ(worst, HealthSeverity::kFault) << entry.code;
        EXPECT_EQ(action, HealthAction::kReplace) << entry.code;
        break;
      case Resolution::kUpdateSoftware:
      case Resolution::kCheckUvm:
      case Resolution::kWorkflow:
      case Resolution::kNone:
        break;  // the scenarios say it one by one
    }
  }
}

TEST(BuiltinPolicy, lists_where_it_differs_from_the_eks_agent_on_purpose) {
  std::set<uint32_t> differs;
  for (const XidEntry& entry : xid_catalogue()) {
    const auto verdicts = verdicts_of(xid(entry.code));
    const bool fault = !verdicts.empty() && verdicts[0].severity == HealthSeverity::kFault;
    if (fault != (eks_agent_does(entry.code) == "node replaced")) differs.insert(entry.code);
  }
  // 63: memory repaired. 167 to 169: newer than its list.
  EXPECT_EQ(differs, (std::set<uint32_t>{63, 167, 168, 169}));
}

TEST(BuiltinPolicy, reads_back_what_it_writes) {
  const auto again = api::HealthPolicy::decode(builtin_policy().encode());
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(*again, builtin_policy());
}

TEST(Explain, says_what_follows_and_why_with_the_source) {
  EXPECT_EQ(
      explain(builtin_policy(), "xid", 94),
      "XID 94: Contained memory error\n"
      "  NVIDIA says   RESTART_APP\n"
      "  EKS agent     event\n"
      "  NVSentinel    RESTART_APP\n"
      "  DCGM          WARN\n"
      "What follows here\n"
      "  xid-94\n"
      "    what    Warning, Restart, until it was not seen for 1h\n"
      "    why     A contained memory error; the program that had the page is ended and restarted, the GPU goes on\n"
      "    source  NVIDIA: RESTART_APP; DCGM: WARN; gpud: never escalates it; row remapping is watched by its own "
      "rules\n");
  EXPECT_NE(explain(builtin_policy(), "xid", 74).find("3 times within 24h with the same link"), std::string::npos);
  EXPECT_NE(explain(builtin_policy(), "xid", 500).find("not in NVIDIA's catalogue"), std::string::npos);
  EXPECT_NE(explain(builtin_policy(), "sxid", 12028).find("sxid-fatal (if severity is Fatal)"), std::string::npos);
}

TEST(Explain, the_committed_page_is_up_to_date) {
  std::ifstream file(std::filesystem::path(PITCREW_SOURCE_DIR) / "docs/health-xids.md");
  const std::string page((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  EXPECT_EQ(page, xid_page(builtin_policy())) << "write it anew: pitcrew health table > docs/health-xids.md";
}

TEST(Memory, survives_a_restart_and_stays_bounded) {
  History history;
  for (int i = 0; i < 2000; ++i) {
    const Observation events[] = {xid(74, "boot/" + std::to_string(i))};
    history = judge(events, builtin_policy(), std::move(history), events[0].time).history;
  }
  const std::string memory = remember(history);
  EXPECT_LE(memory.size(), 64u * 1024);
  const auto again = recall(memory);
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->open, history.open);
  EXPECT_FALSE(recall("{\"form\": \"other\"}"));
  EXPECT_FALSE(recall("not json"));
  EXPECT_TRUE(recall(""));
}

TEST(Memory, devices_that_are_not_read_any_more_are_forgotten) {
  History history;
  Instant now(hours(1000));
  for (int i = 0; i < 5000; ++i) {
    now += minutes(10);
    Observation reading;
    reading.kind = "disk.space";
    reading.device = "/volumes/" + std::to_string(i);
    reading.values["used_percent"] = 10.0;
    reading.reading = true;
    reading.time = now;
    const Observation readings[] = {reading};
    history = judge(readings, builtin_policy(), std::move(history), now).history;
  }
  EXPECT_LE(history.readings.size(), 25u * 6 + 1);  // of a day, and of the hour until they are looked for
  EXPECT_TRUE(history.readings.contains({"disk.space", "/volumes/4999"}));
}

TEST(Assessment, names_the_strongest_fault_and_what_the_node_needs) {
  const Verdict verdicts[] = {
      {.rule = "a", .severity = HealthSeverity::kWarning, .action = HealthAction::kReplace},
      {.rule = "xid-reset",
       .device = "A",
       .severity = HealthSeverity::kFault,
       .certain = true,
       .action = HealthAction::kReset,
       .message = "m"},
      {.rule = "gpu-missing", .severity = HealthSeverity::kFault, .action = HealthAction::kReboot, .message = "n"}};
  const Assessment node = assess(verdicts);
  EXPECT_FALSE(node.healthy);
  EXPECT_TRUE(node.certain);
  EXPECT_EQ(node.needs, HealthAction::kReboot);
  EXPECT_EQ(node.reason, "GpuMissing");
  EXPECT_EQ(node.message, "n; A: m");
  EXPECT_TRUE(assess(std::span(verdicts, 1)).healthy);
}

}  // namespace
}  // namespace pitcrew::agent
