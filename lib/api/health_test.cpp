#include <gtest/gtest.h>

#include "lib/api/health_policy.hpp"
#include "lib/api/node_health.hpp"
#include "lib/base/yaml.hpp"

namespace pitcrew::api {
namespace {

Json yaml(const std::string& text) { return parse_yaml(text)->front().json; }

std::string wrong(const std::string& rule) {
  const auto policy = HealthPolicy::decode(yaml(
      "{apiVersion: pitcrew.dev/v1alpha1, kind: HealthPolicy, metadata: {name: a}, spec: {rules: [" + rule + "]}}"));
  return policy ? "" : policy.error().message;
}

const char kGood[] =
    "{name: xid-79, match: {kind: xid, codes: [79, 144-150]}, severity: Fault, certain: true, action: "
    "Reboot, clears: {when: AfterReboot}, message: gone, source: NVIDIA}";

TEST(HealthPolicyType, reads_back_what_it_writes) {
  const auto policy = HealthPolicy::decode(yaml(R"(
apiVersion: pitcrew.dev/v1alpha1
kind: HealthPolicy
metadata: {name: cluster}
spec:
  rules:
  - {name: xid-79, match: {kind: xid, codes: [79, 144-150]}, severity: Fault, certain: true, action: Reboot, clears: {when: AfterReboot}, message: gone, source: NVIDIA}
  - name: parity
    match:
      kind: xid
      codes: [74]
      any: [{value: reg0, bits: [4, 5]}, {value: reg2, bitsOutside: []}, {value: unit, is: [RLW, 7]}, {value: a, growsPerMinuteAboveValue: b}]
      all: [{value: rows, above: 3}, {value: count, belowValue: expected}, {value: x, present: false}, {value: y, grows: 0}, {value: z, growsPerMinute: 1.5}]
      alone: 10s
    count: 3
    window: 24h
    burst: 3m
    same: [link]
    scope: Node
    severity: Warning
    message: repeated
)"));
  ASSERT_TRUE(policy) << policy.error().message;
  const auto again = HealthPolicy::decode(policy->encode());
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(*again, *policy);
  EXPECT_TRUE(policy->rules[0].about("xid", 147));
  EXPECT_FALSE(policy->rules[0].about("xid", 143));
  EXPECT_FALSE(policy->rules[0].about("sxid", 147));
}

TEST(HealthPolicyType, says_what_is_wrong_and_what_to_do) {
  EXPECT_EQ(wrong(kGood), "");
  EXPECT_EQ(wrong("{name: a, match: {kind: xid, code: [1]}, severity: Info, message: m}"),
            "HealthPolicy a: spec.rules[0].match.code: unknown field; did you mean 'codes'?");
  EXPECT_EQ(wrong("{name: a, match: {kind: xid}, severity: Bad, message: m}"),
            "HealthPolicy a: spec.rules[0].severity: 'Bad' is none of: Info, Warning, Fault");
  EXPECT_EQ(wrong("{name: a, match: {kind: xid, codes: [9-3]}, severity: Info, message: m}"),
            "HealthPolicy a: spec.rules[0].match.codes[0]: must be a code like 79 or a range like \"144-150\"");
  EXPECT_EQ(wrong("{name: a, match: {kind: xid}, count: 3, severity: Info, message: m}"),
            "HealthPolicy a: spec.rules[0].window: is missing; say within which time so many count");
  EXPECT_EQ(wrong("{name: a, match: {kind: probe}, severity: Fault, message: m}"),
            "HealthPolicy a: spec.rules[0].severity: must not be Fault; a broken probe is not a broken GPU");
  EXPECT_EQ(wrong("{name: a, match: {kind: xid}, severity: Warning, certain: true, message: m}"),
            "HealthPolicy a: spec.rules[0].certain: is for severity Fault; others cordon nothing");
  EXPECT_EQ(
      wrong("{name: a, match: {kind: x, all: [{value: v, above: 1, below: 2}]}, severity: Info, message: m}"),
      "HealthPolicy a: spec.rules[0].match.all[0]: needs exactly one of is, above, below, aboveValue, belowValue, "
      "grows, growsLess, growsPerMinute, growsPerMinuteAboveValue, bits, bitsOutside, present");
  EXPECT_NE(wrong(std::string(kGood) + ", " + kGood).find("spec.rules: have two of one name"), std::string::npos);
  EXPECT_NE(wrong("{name: a, exec: /bin/true, match: {kind: x}, severity: Info, message: m}").find("unknown field"),
            std::string::npos);
}

TEST(HealthPolicyType, a_clusters_policy_replaces_rules_by_name_and_adds_others) {
  HealthPolicy base, over;
  base.rules = {{.name = "a", .message = "old"}, {.name = "b"}};
  over.rules = {{.name = "c"}, {.name = "a", .message = "new"}};
  const HealthPolicy merged = merge(base, over);
  ASSERT_EQ(merged.rules.size(), 3u);
  EXPECT_EQ(merged.rules[0].message, "new");
  EXPECT_EQ(merged.rules[2].name, "c");
}

NodeHealth example() {
  NodeHealth health;
  health.spec = {"aws:///us-east-2b/i-0ABC", "uid-1", "ip-10-0-0-1"};
  health.metadata.name = "i-0abc";
  const Instant time = *parse_rfc3339("2026-03-01T00:00:00.25Z");
  health.status.healthy = false;
  health.status.needs = HealthAction::kReplace;
  health.status.gpus = {{"GPU-1", "165", "0000:b9:00.0", "NVIDIA H200"}};
  health.status.verdicts = {
      {"xid-79", "GPU-1", HealthSeverity::kFault, true, HealthAction::kReplace, "gone", time, time, 2}};
  health.status.history = {{time, "xid-79", "GPU-1", HealthChange::kRaised, "gone", HealthSeverity::kFault}};
  health.status.rates = {{"rdmap0s29", "retrans_pkts", 12.5, time}};
  health.status.checks = {{"c1", "memory", CheckOutcome::kPassed, "", time}};
  return health;
}

TEST(NodeHealthType, reads_back_what_it_writes) {
  const auto again = NodeHealth::decode(example().encode());
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(*again, example());
}

TEST(NodeHealthType, a_check_is_as_good_as_its_worst_test_and_what_is_unknown_condemns_nobody) {
  const Instant time = *parse_rfc3339("2026-03-01T00:00:00Z");
  NodeHealthStatus status;
  EXPECT_EQ(checked(status), CheckOutcome::kUnknown);
  EXPECT_FALSE(unchecked_fault(status));
  status.history = {{time, "xid-79", "", HealthChange::kRaised, "", HealthSeverity::kFault},
                    {time + minutes(2), "xid-63", "", HealthChange::kRaised, "", HealthSeverity::kWarning},
                    {time + minutes(3), "xid-79", "", HealthChange::kCleared, "", HealthSeverity::kFault}};
  EXPECT_EQ(unchecked_fault(status), time) << "of faults alone, and when they came";
  const auto outcome = [&](CheckOutcome a, CheckOutcome b) {
    status.checks = {{"old", "burn", CheckOutcome::kFailed, "", time - hours(1)},
                     {"new", "burn", a, "", time + minutes(9)},
                     {"new", "efa", b, "", time + minutes(9)}};
    return checked(status);
  };
  EXPECT_EQ(outcome(CheckOutcome::kPassed, CheckOutcome::kUnknown), CheckOutcome::kUnknown);
  EXPECT_TRUE(unchecked_fault(status));
  EXPECT_EQ(outcome(CheckOutcome::kUnknown, CheckOutcome::kFailed), CheckOutcome::kFailed);
  EXPECT_EQ(outcome(CheckOutcome::kPassed, CheckOutcome::kPassed), CheckOutcome::kPassed);
  EXPECT_FALSE(unchecked_fault(status));
}

TEST(NodeHealthType, is_named_after_the_instance_and_never_after_the_node) {
  EXPECT_EQ(node_health_name({"aws:///us-east-2b/i-0123", "u", "n"}), "i-0123");
  EXPECT_EQ(node_health_name({"", "1b2c", "n"}), "node-1b2c");
  EXPECT_EQ(node_health_name({"kind://docker/a/B_c-", "u", "n"}), "bxcx");
  NodeHealth health = example();
  health.metadata.name = "ip-10-0-0-1";
  EXPECT_EQ(NodeHealth::decode(health.encode()).error().message,
            "NodeHealth ip-10-0-0-1: metadata.name: must be i-0abc, after the instance");
}

TEST(NodeHealthType, is_bounded) {
  NodeHealth health = example();
  health.status.history.resize(NodeHealth::kMaxHistory + 1, health.status.history[0]);
  EXPECT_FALSE(NodeHealth::decode(health.encode()));
}

}  // namespace
}  // namespace pitcrew::api
