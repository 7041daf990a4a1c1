#include "agent/act/plan.hpp"

#include <gtest/gtest.h>

#include "agent/act/node_patch.hpp"
#include "lib/api/health_names.hpp"

namespace pitcrew::agent {
namespace {

namespace names = api::health;

const Instant kNow = Instant(seconds(1'700'000'000));

// What is found and what the cluster has, told by what differs from a healthy node that is known to be so.
class Case {
 public:
  Case() {
    standing_.node.metadata.name = "n1";
    standing_.node.metadata.uid = "u1";
    standing_.node.provider_id = "aws:///us-east-2b/i-0a1";
    findings_.settled = true;
    findings_.boot_id = "b1";
    condition("True", "NoFault", "no fault has been found");
    standing_.condition_written = kNow;
    standing_.health_written = kNow - hours(1);
    api::CordonBudget budget;
    budget.metadata.name = api::CordonBudget::kName;
    standing_.budget = budget;
    standing_.budget_read = kNow;
    standing_.agents = 10;
  }

  Case& fault(const std::string& rule, bool certain = true, api::HealthAction action = api::HealthAction::kReplace,
              const std::string& device = "GPU-3") {
    Verdict verdict;
    verdict.rule = rule;
    verdict.device = device;
    verdict.severity = api::HealthSeverity::kFault;
    verdict.certain = certain;
    verdict.action = action;
    verdict.message = "it is bad";
    verdict.since = verdict.last = kNow;
    findings_.verdicts.push_back(verdict);
    return *this;
  }
  Case& warning(const std::string& rule) {
    fault(rule);
    findings_.verdicts.back().severity = api::HealthSeverity::kWarning;
    return *this;
  }
  Case& history(const std::string& rule, Instant time, api::HealthChange change = api::HealthChange::kRaised) {
    findings_.history.push_back({time, rule, "GPU-3", change, "it is bad"});
    return *this;
  }
  Case& unsettled() { return findings_.settled = false, *this; }
  Case& shadow() { return settings_.shadow = true, *this; }
  Case& condition(const std::string& status, const std::string& reason, const std::string& message) {
    standing_.node.conditions = {{"Ready", "True", "", "", kNow},
                                 {names::kCondition, status, reason, message, kNow - hours(3)}};
    return *this;
  }
  Case& tainted() {
    standing_.node.taints.push_back({names::kUnhealthy, "", "NoSchedule"});
    return *this;
  }
  Case& label(const std::string& value) { return standing_.node.metadata.labels[names::kUnhealthy] = value, *this; }
  Case& noted(Instant time, bool certain = true) {
    standing_.node.metadata.annotations[names::kCordoned] = to_string({time, "xid-79", certain});
    return *this;
  }
  Case& unschedulable() { return standing_.node.unschedulable = true, *this; }
  Case& hold(const std::string& value = "true") {
    return standing_.node.metadata.annotations[names::kHold] = value, *this;
  }
  Case& cordoned_elsewhere(int nodes, Duration ago = minutes(1)) {
    for (int i = 0; i < nodes; ++i)
      standing_.budget->cordons["other" + std::to_string(i)] = {"", "x", kNow - ago, "r", true};
    return *this;
  }
  Case& agents(uint32_t count) { return standing_.agents = count, *this; }
  Case& token(Duration ago = seconds(1), const std::string& uid = "u1") {
    standing_.budget->cordons["n1"] = {"", uid, kNow - ago, "r", false};
    return *this;
  }
  Case& budget_read(std::optional<Duration> ago) {
    standing_.budget_read = ago ? std::optional(kNow - *ago) : std::nullopt;
    if (!ago) standing_.budget.reset();
    return *this;
  }
  Case& no_budget() { return standing_.budget.reset(), *this; }
  // NodeHealth as this plan would write it.
  Case& in_agreement() {
    standing_.health_read = "i-0a1";
    standing_.health = make().health;
    return *this;
  }
  Case& absent_health() { return standing_.health_read = "i-0a1", *this; }

  Plan make(Duration later = Duration(0)) const { return plan(findings_, standing_, settings_, kNow + later); }
  // What would be done to the node and the budget, in words.
  std::string quarantine(Duration later = Duration(0)) const {
    const Plan made = make(later);
    std::string text;
    const auto add = [&](const std::string& word) { text += (text.empty() ? "" : " ") + word; };
    if (made.node) {
      if (made.node->label) add(made.node->label->empty() ? "-label" : "+label");
      if (made.node->taint) add(*made.node->taint ? "+taint" : "-taint");
      if (made.node->annotation) add(made.node->annotation->empty() ? "-note" : "+note");
      if (made.node->cordon) add("cordon");
      if (made.node->uncordon) add("uncordon");
    }
    if (made.read_budget) add("read-budget");
    if (made.take_token) add("take-token");
    if (made.count_cordon) add("count");
    if (!made.refused.empty()) add("refused");
    return text;
  }
  Findings& findings() { return findings_; }
  Standing& standing() { return standing_; }

 private:
  Findings findings_;
  Standing standing_;
  ActSettings settings_;
};

struct Row {
  const char* name;
  Case in;
  const char* out;
};

class Quarantine : public testing::TestWithParam<Row> {};

TEST_P(Quarantine, follows) { EXPECT_EQ(GetParam().in.quarantine(), GetParam().out); }

const Row kRows[] = {
    {"a_healthy_node_is_left_alone", Case(), ""},
    {"a_certain_fault_cordons_at_once", Case().fault("xid-79"), "+label +taint +note cordon"},
    {"a_certain_fault_asks_nobody", Case().fault("xid-79").cordoned_elsewhere(9).agents(10),
     "+label +taint +note cordon"},
    {"a_certain_fault_does_not_wait_for_the_budget", Case().fault("xid-79").budget_read(std::nullopt),
     "+label +taint +note cordon"},
    {"a_fault_is_believed_before_health_is", Case().fault("xid-79").unsettled(), "+label +taint +note cordon"},
    {"a_warning_leaves_the_node", Case().warning("xid-63"), ""},
    {"another_fault_takes_a_token_first", Case().fault("xid-95", false), "+label take-token"},
    {"with_the_token_it_cordons", Case().fault("xid-95", false).token(), "+label +taint +note cordon"},
    {"the_budget_is_read_before", Case().fault("xid-95", false).budget_read(std::nullopt), "+label read-budget"},
    {"an_old_reading_of_the_budget_is_not_judged_by", Case().fault("xid-95", false).budget_read(seconds(6)),
     "+label read-budget"},
    {"a_token_of_the_node_before_of_this_name_is_none", Case().fault("xid-95", false).token(seconds(1), "u0"),
     "+label take-token"},
    {"a_token_of_long_ago_is_none", Case().fault("xid-95", false).token(minutes(6)), "+label take-token"},
    {"three_nodes_may_go_without_asking_for_a_share", Case().fault("xid-95", false).cordoned_elsewhere(2).agents(4),
     "+label take-token"},
    {"the_fourth_of_ten_is_refused", Case().fault("xid-95", false).cordoned_elsewhere(3), "+label refused"},
    {"the_fourth_of_twenty_is_not", Case().fault("xid-95", false).cordoned_elsewhere(3).agents(20),
     "+label take-token"},
    {"the_fifth_of_twenty_is", Case().fault("xid-95", false).cordoned_elsewhere(4).agents(20), "+label refused"},
    {"cordons_of_six_minutes_ago_do_not_count", Case().fault("xid-95", false).cordoned_elsewhere(9, minutes(6)),
     "+label take-token"},
    {"where_the_number_of_agents_is_not_known_three_is_all",
     Case().fault("xid-95", false).cordoned_elsewhere(3).agents(0), "+label refused"},
    {"without_a_budget_only_certain_faults_cordon", Case().fault("xid-95", false).no_budget(), "+label refused"},
    {"a_certain_fault_beside_another_needs_no_token", Case().fault("xid-95", false).fault("xid-79").no_budget(),
     "+label +taint +note cordon"},
    {"shadow_mode_keeps_nothing_away", Case().shadow().fault("xid-79"), "+label"},
    {"shadow_mode_takes_no_token", Case().shadow().fault("xid-95", false), "+label"},
    {"what_is_done_is_done", Case().fault("xid-79").label("xid-79").tainted().noted(kNow - hours(1)).unschedulable(),
     ""},
    {"who_uncordons_a_bad_node_meant_it", Case().fault("xid-79").label("xid-79").tainted().noted(kNow - hours(1)), ""},
    {"the_taint_is_put_back", Case().fault("xid-79").label("xid-79").noted(kNow - hours(1)), "+taint"},
    {"a_node_that_somebody_cordoned_gets_the_taint_alone", Case().fault("xid-79").unschedulable(), "+label +taint"},
    {"the_label_follows_the_strongest_fault",
     Case().fault("xid-48").label("xid-79").tainted().noted(kNow - hours(1)).unschedulable(), "+label"},
    {"a_certain_cordon_counts_in_the_budget",
     Case().fault("xid-79").label("xid-79").tainted().noted(kNow - seconds(1)).unschedulable(), "count"},
    {"a_cordon_by_token_is_counted_already",
     Case().fault("xid-95", false).label("xid-95").tainted().noted(kNow, false).unschedulable(), ""},
    {"all_is_taken_back", Case().label("xid-79").tainted().noted(kNow - hours(1)).unschedulable(),
     "-label -taint -note uncordon"},
    {"the_taint_is_taken_back_where_the_cordon_is_not_ours", Case().label("x").tainted().unschedulable(),
     "-label -taint"},
    {"nothing_is_taken_back_before_it_is_known_what_was_before",
     Case().unsettled().label("xid-79").tainted().noted(kNow - hours(1)).unschedulable(), ""},
    {"hold_keeps_everything", Case().hold().label("xid-79").tainted().noted(kNow - hours(1)).unschedulable(), ""},
    {"hold_false_is_no_hold", Case().hold("false").tainted(), "-taint"},
    {"hold_keeps_no_new_fault_away", Case().hold().fault("xid-79"), "+label +taint +note cordon"},
};
INSTANTIATE_TEST_SUITE_P(Table, Quarantine, testing::ValuesIn(kRows), [](const auto& info) { return info.param.name; });

TEST(Plan, a_refused_cordon_is_asked_for_again_after_half_a_minute) {
  const Case refused = Case().fault("xid-95", false).cordoned_elsewhere(3);
  EXPECT_EQ(refused.make().wake, kNow + seconds(30));
  EXPECT_EQ(refused.make().refused,
            "with n1, 4 of 10 nodes would have been cordoned within 5m; CordonBudget default allows 3, or 20 % where "
            "that is more");
  ASSERT_EQ(refused.make().events.size(), 1u);
  EXPECT_EQ(refused.make().events[0].reason, "CordonRefused");
  EXPECT_EQ(refused.quarantine(seconds(30)), "+label read-budget refused");
}

TEST(Plan, the_note_of_a_cordon_says_when_for_what_and_by_which_right) {
  const CordonNote certain{kNow, "xid-79", true}, token{kNow, "gpu-missing", false};
  EXPECT_EQ(to_string(certain), "2023-11-14T22:13:20.000Z xid-79");
  EXPECT_EQ(to_string(token), "2023-11-14T22:13:20.000Z gpu-missing (token)");
  for (const CordonNote& note : {certain, token}) {
    const auto parsed = parse_cordon_note(to_string(note));
    ASSERT_TRUE(parsed);
    EXPECT_EQ(parsed->time, note.time);
    EXPECT_EQ(parsed->rule, note.rule);
    EXPECT_EQ(parsed->certain, note.certain);
  }
  EXPECT_FALSE(parse_cordon_note("because I can"));
}

TEST(Plan, the_condition_flips_once_and_keeps_its_time_while_words_change) {
  Case bad = Case().fault("xid-79");
  ASSERT_TRUE(bad.make().condition);
  EXPECT_EQ(bad.make().condition->status, "False");
  EXPECT_EQ(bad.make().condition->reason, "Xid79");
  EXPECT_EQ(bad.make().condition->message, "GPU-3: it is bad");
  EXPECT_EQ(bad.make().condition->last_transition, kNow);

  bad.condition("False", "Xid48", "something else");
  EXPECT_FALSE(bad.make(seconds(29)).condition);
  EXPECT_EQ(bad.make(seconds(29)).wake, kNow + seconds(30));
  ASSERT_TRUE(bad.make(seconds(30)).condition);
  EXPECT_EQ(bad.make(seconds(30)).condition->last_transition, kNow - hours(3));
}

TEST(Plan, a_healthy_node_is_written_once_in_five_minutes) {
  const Case quiet = Case().in_agreement();
  EXPECT_TRUE(quiet.make().idle());
  EXPECT_TRUE(quiet.make(minutes(5) - seconds(1)).idle());
  EXPECT_EQ(quiet.make().wake, kNow + minutes(5));
  const Plan beat = quiet.make(minutes(5));
  ASSERT_TRUE(beat.condition);
  EXPECT_EQ(beat.condition->last_transition, kNow - hours(3));
  EXPECT_FALSE(beat.health || beat.node || !beat.events.empty());
}

TEST(Plan, nothing_good_is_said_before_it_is_known_what_was_before) {
  const Plan made = Case().unsettled().absent_health().condition("False", "Xid79", "bad").make();
  EXPECT_TRUE(made.idle());
}

TEST(Plan, node_health_is_read_before_it_is_written_and_by_the_name_of_the_instance) {
  Case fresh;
  EXPECT_TRUE(fresh.make().read_health);
  EXPECT_FALSE(fresh.make().health);
  const Plan made = fresh.absent_health().make();
  ASSERT_TRUE(made.health);
  EXPECT_EQ(made.health->metadata.name, "i-0a1");
  EXPECT_TRUE(made.health->status.healthy);
  // A provider ID that comes later is another identity.
  fresh.standing().node.provider_id = "aws:///us-east-2b/i-0b2";
  EXPECT_TRUE(fresh.make().read_health);
}

TEST(Plan, a_verdict_is_written_at_once_and_told_once) {
  Case bad = Case().in_agreement().fault("xid-79").history("xid-79", kNow);
  Plan made = bad.make();
  ASSERT_TRUE(made.health);
  EXPECT_EQ(made.health->status.needs, api::HealthAction::kReplace);
  ASSERT_EQ(made.events.size(), 1u);
  const kube::Event event = made.events[0];
  EXPECT_EQ(event.metadata.ns, "default");
  EXPECT_EQ(event.regarding.uid, "u1");
  EXPECT_EQ(event.note, "xid-79 on GPU-3: it is bad");
  EXPECT_EQ(bad.make(seconds(9)).events[0].metadata.name, event.metadata.name);

  bad.standing().told.insert(event.metadata.name);
  EXPECT_TRUE(bad.make().events.empty());
  bad.standing().told.clear();
  bad.in_agreement();
  EXPECT_TRUE(bad.make().events.empty());
  EXPECT_FALSE(bad.make().health);
}

TEST(Plan, old_news_are_written_into_the_history_and_told_to_nobody) {
  const Plan made = Case().absent_health().history("xid-79", kNow - hours(2)).make();
  ASSERT_TRUE(made.health);
  EXPECT_EQ(made.health->status.history.size(), 1u);
  EXPECT_TRUE(made.events.empty());
}

TEST(Plan, counts_alone_wait_for_a_minute_and_rates_for_ten_seconds) {
  Case bad = Case().fault("xid-79").in_agreement();
  bad.standing().health_written = kNow;
  bad.findings().verdicts[0].count = 900;
  bad.findings().memory = "more";
  EXPECT_FALSE(bad.make(seconds(59)).health);
  EXPECT_TRUE(bad.make(seconds(60)).health);
  bad.findings().rates = {{"rdmap0s1", "rx_drops", 100, kNow}};
  EXPECT_FALSE(bad.make(seconds(9)).health);
  EXPECT_TRUE(bad.make(seconds(10)).health);
  bad.fault("xid-48");
  EXPECT_TRUE(bad.make().health);
}

TEST(Plan, history_and_verdicts_are_bounded) {
  Case flood = Case().absent_health();
  for (int i = 0; i < 300; ++i) flood.history("xid-" + std::to_string(i), kNow + milliseconds(i)).warning("w");
  flood.fault("xid-79");
  const Plan made = flood.make();
  EXPECT_EQ(made.health->status.history.size(), api::NodeHealth::kMaxHistory);
  EXPECT_EQ(made.health->status.history.back().rule, "xid-299");
  EXPECT_EQ(made.health->status.verdicts.size(), api::NodeHealth::kMaxVerdicts);
  EXPECT_EQ(made.health->status.verdicts.front().rule, "xid-79");
  EXPECT_LE(made.events.size(), 20u);
}

TEST(Plan, times_that_come_back_rounded_are_the_same) {
  Case bad = Case().fault("xid-79").history("xid-79", kNow + Duration(123'456));
  bad.findings().verdicts[0].since += Duration(987'654);
  bad.in_agreement();
  bad.standing().health = *api::NodeHealth::decode(bad.standing().health->encode());
  EXPECT_FALSE(bad.make().health);
}

Json node_json(const std::string& owner) {
  return {{"metadata",
           {{"name", "n1"},
            {"uid", "u1"},
            {"resourceVersion", "7"},
            {"managedFields",
             Json::array({{{"manager", owner}, {"fieldsV1", {{"f:spec", {{"f:unschedulable", Json::object()}}}}}}})}}},
          {"spec",
           {{"unschedulable", true},
            {"taints", Json::array({{{"key", "other"}, {"effect", "NoExecute"}, {"timeAdded", "2026-01-01T00:00:00Z"}},
                                    {{"key", names::kUnhealthy}, {"effect", "NoSchedule"}}})}}}};
}

TEST(NodePatch, takes_effect_on_the_version_that_was_read_and_leaves_what_others_put_there) {
  NodeChange change;
  change.label = "xid-79";
  change.taint = true;
  change.cordon = true;
  Json node = node_json("kubelet");
  node["spec"]["taints"].erase(1);
  const Json body = node_patch(change, node, kNow).body;
  EXPECT_EQ(body["metadata"]["uid"], "u1");
  EXPECT_EQ(body["metadata"]["resourceVersion"], "7");
  EXPECT_EQ(body["metadata"]["labels"][names::kUnhealthy], "xid-79");
  ASSERT_EQ(body["spec"]["taints"].size(), 2u);
  EXPECT_EQ(body["spec"]["taints"][0], node["spec"]["taints"][0]);
  EXPECT_EQ(body["spec"]["taints"][1]["timeAdded"], "2023-11-14T22:13:20Z");
  EXPECT_EQ(body["spec"]["unschedulable"], true);
}

TEST(NodePatch, uncordons_only_while_the_cordon_is_still_ours) {
  NodeChange change;
  change.label = "";
  change.annotation = "";
  change.taint = false;
  change.uncordon = true;
  const NodePatch ours = node_patch(change, node_json(names::kFieldManager), kNow);
  EXPECT_FALSE(ours.kept);
  EXPECT_EQ(ours.body["spec"]["unschedulable"], nullptr);
  EXPECT_EQ(ours.body["spec"]["taints"].size(), 1u);
  EXPECT_EQ(ours.body["metadata"]["annotations"][names::kCordoned], nullptr);
  const NodePatch theirs = node_patch(change, node_json("kubectl-cordon"), kNow);
  EXPECT_TRUE(theirs.kept);
  EXPECT_FALSE(theirs.body["spec"].contains("unschedulable"));
  EXPECT_EQ(theirs.body["spec"]["taints"].size(), 1u);
}

TEST(HealthPatch, takes_out_what_is_no_more_and_leaves_the_checks_to_the_operator) {
  api::NodeHealth old, wanted;
  old.metadata.name = wanted.metadata.name = "node-u";
  old.metadata.uid = "h1";
  old.spec.node_uid = wanted.spec.node_uid = "u";
  old.status.verdicts.resize(1);
  old.status.message = "bad";
  old.status.checks.resize(1);
  const Json body = health_patch(wanted, old);
  EXPECT_EQ(body["metadata"]["uid"], "h1");
  EXPECT_EQ(body["status"]["verdicts"], nullptr);
  EXPECT_EQ(body["status"]["message"], nullptr);
  EXPECT_FALSE(body["status"].contains("checks"));
}

}  // namespace
}  // namespace pitcrew::agent
