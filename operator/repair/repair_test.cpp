#include <gtest/gtest.h>

#include "lib/api/check_report.hpp"
#include "lib/api/health_names.hpp"
#include "operator/repair/check.hpp"
#include "operator/repair/condition.hpp"

namespace pitcrew::control {
namespace {

using api::HealthAction;

const Instant kNow = *parse_rfc3339("2026-03-01T00:10:00Z");

NodeCare care(HealthAction needs) {
  auto node = std::make_shared<kube::Node>();
  node->metadata.name = "n1";
  node->metadata.uid = "u1";
  node->provider_id = "aws:///us-east-2b/i-0abc";
  node->taints = {{api::health::kUnhealthy, "", "NoSchedule"}};
  node->conditions = {{"Ready", "True", "", "", kNow}};
  node->allocatable = {{"cpu", 4000}, {"nvidia.com/gpu", 8000}, {"vpc.amazonaws.com/efa", 32000}};
  auto health = std::make_shared<api::NodeHealth>();
  health->metadata.name = "i-0abc";
  health->metadata.uid = "h1";
  health->spec = {node->provider_id, "u1", "n1"};
  health->status.healthy = false;
  health->status.needs = needs;
  api::HealthVerdict verdict;
  verdict.rule = "xid-79";
  verdict.device = "GPU-1";
  verdict.severity = api::HealthSeverity::kFault;
  verdict.action = needs;
  verdict.message = "gone";
  verdict.since = kNow;
  health->status.verdicts = {verdict};
  return {node, health, false};
}

NodeCare with_node(NodeCare care, const std::function<void(kube::Node&)>& change) {
  auto node = std::make_shared<kube::Node>(*care.node);
  change(*node);
  care.node = node;
  return care;
}

TEST(RepairOrder, what_each_mode_does_about_each_action) {
  struct Row {
    HealthAction needs;
    std::optional<HealthAction> others;  // condition, nodeclaim, label
    std::optional<HealthAction> webhook;
  };
  const Row rows[] = {
      {HealthAction::kNone, {}, {}},
      {HealthAction::kRestart, {}, HealthAction::kRestart},
      {HealthAction::kReset, HealthAction::kReboot, HealthAction::kReset},
      {HealthAction::kReboot, HealthAction::kReboot, HealthAction::kReboot},
      {HealthAction::kReplace, HealthAction::kReplace, HealthAction::kReplace},
  };
  const auto action = [](const std::optional<RepairOrder>& order) {
    return order ? std::optional(order->action) : std::nullopt;
  };
  for (const Row& row : rows) {
    const std::string what(api::to_string(row.needs));
    EXPECT_FALSE(repair_order(care(row.needs), RepairMode::kNone)) << what;
    for (const RepairMode mode : {RepairMode::kCondition, RepairMode::kNodeClaim, RepairMode::kLabel}) {
      EXPECT_EQ(action(repair_order(care(row.needs), mode)), row.others) << what << " by " << to_string(mode);
    }
    EXPECT_EQ(action(repair_order(care(row.needs), RepairMode::kWebhook)), row.webhook) << what;
  }
  const auto order = repair_order(care(HealthAction::kReplace), RepairMode::kLabel);
  EXPECT_EQ(*order, (RepairOrder{HealthAction::kReplace, "Xid79", "xid-79 on GPU-1: gone", kNow}));
}

TEST(RepairOrder, nothing_while_jobs_are_there_or_the_node_is_not_quarantined_or_held) {
  NodeCare used = care(HealthAction::kReplace);
  used.used = true;
  EXPECT_FALSE(repair_order(used, RepairMode::kNodeClaim));
  const NodeCare good = care(HealthAction::kReplace);
  EXPECT_TRUE(repair_order(good, RepairMode::kNodeClaim));
  EXPECT_FALSE(repair_order(with_node(good, [](kube::Node& node) { node.taints.clear(); }), RepairMode::kNodeClaim));
  EXPECT_FALSE(
      repair_order(with_node(good, [](kube::Node& node) { node.metadata.annotations[api::health::kHold] = "me"; }),
                   RepairMode::kNodeClaim));
  NodeCare gone = good;
  gone.node = nullptr;
  EXPECT_FALSE(repair_order(gone, RepairMode::kNodeClaim));
}

TEST(RepairMode, is_read_and_written) {
  for (const char* word : {"none", "condition", "nodeclaim", "label", "webhook"}) {
    EXPECT_EQ(to_string(*parse_repair_mode(word)), word);
  }
  EXPECT_FALSE(parse_repair_mode("reboot"));
}

Json node_written_by(const std::vector<std::string>& managers, bool there = true) {
  Json node{{"metadata", {{"name", "n1"}, {"managedFields", Json::array()}}},
            {"status", {{"conditions", Json::array()}}}};
  if (there) node["status"]["conditions"].push_back({{"type", "AcceleratedHardwareReady"}, {"status", "True"}});
  for (const std::string& manager : managers) {
    node["metadata"]["managedFields"].push_back(
        {{"manager", manager},
         {"fieldsV1",
          {{"f:status",
            {{"f:conditions", {{R"(k:{"type":"AcceleratedHardwareReady"})", {{"f:status", Json::object()}}}}}}}}}});
  }
  return node;
}

TEST(RepairCondition, belongs_to_whom_managed_fields_say) {
  EXPECT_EQ(condition_writer(node_written_by({}, false)), "");
  EXPECT_EQ(condition_writer(node_written_by({kRepairManager})), "");
  EXPECT_EQ(condition_writer(node_written_by({"eks-node-monitoring-agent"})), "eks-node-monitoring-agent");
  EXPECT_EQ(condition_writer(node_written_by({kRepairManager, "eks-node-monitoring-agent"})),
            "eks-node-monitoring-agent");
  EXPECT_EQ(condition_writer(node_written_by({})), "somebody") << "it is there, and nobody says whose it is";
}

TEST(RepairCondition, its_transition_time_moves_with_its_status_alone) {
  kube::Node node;
  node.metadata.name = "n1";
  node.conditions = {{kAcceleratedHardwareReady, "False", "Old", "", kNow - hours(1)}};
  const auto when = [&](bool ready) {
    const Json made = condition_of(node, ready, "Xid79", "gone", kNow);
    return made["status"]["conditions"][0]["lastTransitionTime"].get<std::string>();
  };
  EXPECT_EQ(when(false), to_rfc3339(kNow - hours(1)));
  EXPECT_EQ(when(true), to_rfc3339(kNow));
}

NodeCare asked(const std::string& id, const std::string& answered = "") {
  NodeCare made = care(HealthAction::kReplace);
  auto health = std::make_shared<api::NodeHealth>(*made.health);
  health->metadata.annotations[kRequestCheck] = id;
  if (!answered.empty()) health->status.checks = {{answered, "memory", api::CheckOutcome::kPassed, "", kNow}};
  made.health = health;
  return made;
}

TEST(Check, is_done_once_for_each_request_and_never_beside_a_job) {
  const CheckSettings settings{"check:1", "pitcrew-system", minutes(30)};
  const auto step = [&](const NodeCare& care, CheckPod pod) { return plan_check(care, pod, settings).step; };
  EXPECT_EQ(step(care(HealthAction::kNone), {}), CheckStep::kNothing);
  EXPECT_EQ(step(asked("1"), {}), CheckStep::kCreate);
  EXPECT_EQ(step(asked("1"), {true, false}), CheckStep::kWait);
  EXPECT_EQ(step(asked("1"), {true, true}), CheckStep::kCollect);
  EXPECT_EQ(step(asked("1", "1"), {true, true}), CheckStep::kRemove);
  EXPECT_EQ(step(asked("1", "1"), {}), CheckStep::kNothing);
  EXPECT_EQ(step(asked("2", "1"), {}), CheckStep::kCreate);
  EXPECT_EQ(step(care(HealthAction::kNone), {true, false}), CheckStep::kRemove) << "nobody asks for it any more";
  NodeCare used = asked("1");
  used.used = true;
  EXPECT_EQ(step(used, {}), CheckStep::kWait);
  NodeCare gone = asked("1");
  gone.node = nullptr;
  EXPECT_EQ(step(gone, {}), CheckStep::kRefuse);
  EXPECT_EQ(plan_check(asked("1"), {}, {}).step, CheckStep::kRefuse);
  EXPECT_EQ(step(with_node(asked("1"), [](kube::Node& node) { node.conditions.clear(); }), {}), CheckStep::kWait);
}

NodeCare recovered(Instant fault) {
  NodeCare made = with_node(care(HealthAction::kNone), [](kube::Node& node) { node.taints.clear(); });
  auto health = std::make_shared<api::NodeHealth>(*made.health);
  health->status.healthy = true;
  health->status.verdicts.clear();
  health->status.history = {{fault, "xid-79", "GPU-1", api::HealthChange::kRaised, "gone", api::HealthSeverity::kFault},
                            {fault + minutes(1), "xid-79", "GPU-1", api::HealthChange::kCleared, "not seen again",
                             api::HealthSeverity::kFault}};
  made.health = health;
  return made;
}

NodeCare with_checks(NodeCare care, std::vector<api::CheckResult> checks) {
  auto health = std::make_shared<api::NodeHealth>(*care.health);
  health->status.checks = std::move(checks);
  care.health = health;
  return care;
}

TEST(Check, is_due_once_after_a_fault_when_the_node_is_well_and_idle) {
  const CheckSettings settings{"check:1", "pitcrew-system", minutes(30)};
  const auto plan = [&](const NodeCare& care, CheckPod pod = {}) { return plan_check(care, pod, settings); };
  const NodeCare due = recovered(kNow);
  EXPECT_EQ(plan(due).step, CheckStep::kCreate);
  const std::string id = plan(due).id;
  EXPECT_NE(plan(recovered(kNow + hours(1))).id, id) << "each fault has its own";

  NodeCare used = due;
  used.used = true;
  EXPECT_EQ(plan(used).step, CheckStep::kWait) << "never beside a job";
  using Outcome = api::CheckOutcome;
  for (const Outcome outcome : {Outcome::kPassed, Outcome::kFailed, Outcome::kUnknown}) {
    EXPECT_EQ(plan(with_checks(due, {{id, "memory", outcome, "", kNow + minutes(9)}})).step, CheckStep::kNothing)
        << to_string(outcome) << ": it is not done again for the same fault";
  }
  EXPECT_EQ(plan(with_checks(due, {{"old", "memory", Outcome::kPassed, "", kNow - minutes(9)}})).step,
            CheckStep::kCreate)
      << "passed before the fault";
  EXPECT_EQ(plan(with_checks(due, {{"mine", "memory", Outcome::kPassed, "", kNow + minutes(9)}})).step,
            CheckStep::kNothing)
      << "somebody else's request has answered it";

  EXPECT_EQ(plan(with_node(due, [](kube::Node& node) { node.unschedulable = true; })).step, CheckStep::kNothing);
  EXPECT_EQ(plan(with_node(due, [](kube::Node& node) { node.metadata.annotations[api::health::kHold] = "me"; })).step,
            CheckStep::kNothing);
  EXPECT_EQ(plan(with_node(due, [](kube::Node& node) { node.allocatable.erase("nvidia.com/gpu"); })).step,
            CheckStep::kNothing)
      << "no GPUs";
  EXPECT_EQ(plan(care(HealthAction::kReplace)).step, CheckStep::kNothing) << "it is still bad";
  CheckSettings off = settings;
  off.after_faults = false;
  EXPECT_EQ(plan_check(due, {}, off).step, CheckStep::kNothing);
  off = settings;
  off.image.clear();
  EXPECT_EQ(plan_check(due, {}, off).step, CheckStep::kNothing);
}

TEST(Check, a_pod_that_can_not_start_is_not_waited_for) {
  const CheckSettings settings{"check:1", "pitcrew-system", minutes(30)};
  EXPECT_EQ(plan_check(asked("1"), {true, false, true}, settings).step, CheckStep::kCollect);
  const Json waiting{
      {"status",
       {{"containerStatuses",
         Json::array({{{"state", {{"waiting", {{"reason", "ImagePullBackOff"}, {"message", "no"}}}}}}})}}}};
  const auto results = check_results(waiting, "1", kNow);
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].outcome, api::CheckOutcome::kUnknown);
  EXPECT_EQ(results[0].message,
            "the check's pod ended without a report: its container can't be started: ImagePullBackOff no");
}

TEST(Check, its_pod_asks_for_all_of_the_nodes_gpus_and_tolerates_the_quarantine) {
  const Json pod = check_pod(asked("c-7"), "c-7", {"check:1", "pitcrew-system", minutes(30)});
  const Json& spec = pod.at("spec");
  EXPECT_EQ(pod.at("metadata").at("name"), "check-i-0abc");
  EXPECT_EQ(pod.at("metadata").at("ownerReferences").at(0).at("uid"), "h1");
  EXPECT_EQ(spec.at("containers").at(0).at("resources").at("limits"),
            (Json{{"nvidia.com/gpu", "8"}, {"vpc.amazonaws.com/efa", "32"}}));
  EXPECT_EQ(spec.at("activeDeadlineSeconds"), 1800);
  const Json& container = spec.at("containers").at(0);
  const Json arguments = container.at("args");
  const auto disk = std::find(arguments.begin(), arguments.end(), "--disk");
  ASSERT_NE(disk, arguments.end());
  EXPECT_EQ(*(disk + 1), container.at("volumeMounts").at(0).at("mountPath")) << "what it writes to is mounted";
  EXPECT_TRUE(spec.at("volumes").at(0).contains("emptyDir"));
  EXPECT_EQ(spec.at("automountServiceAccountToken"), false);
  EXPECT_EQ(spec.at("tolerations").at(0).at("key"), api::health::kUnhealthy);
  EXPECT_NE(spec.dump().find(R"({"key":"metadata.name","operator":"In","values":["n1"]})"), std::string::npos);
}

TEST(Check, answers_what_the_pods_report_says_or_why_there_is_none) {
  api::CheckReport report;
  report.id = "another";
  report.node = "n1";
  report.time = kNow;
  report.tests = {{"memory", "GPU-1", api::CheckOutcome::kPassed, "", 1, {}},
                  {"burn", "", api::CheckOutcome::kFailed, "bits differ", 1, {}}};
  const auto ended = [](const std::string& message, const std::string& reason) {
    return Json{{"status",
                 {{"reason", reason},
                  {"containerStatuses", Json::array({{{"state", {{"terminated", {{"message", message}}}}}}})}}}};
  };
  const auto results = check_results(ended(report.encode_within(4096), ""), "c-7", kNow);
  ASSERT_EQ(results.size(), 2u);
  EXPECT_EQ(results[0].id, "c-7");
  EXPECT_EQ(results[0].outcome, api::CheckOutcome::kPassed);
  EXPECT_EQ(results[1].outcome, api::CheckOutcome::kFailed);
  const auto late = check_results(ended("", "DeadlineExceeded"), "c-7", kNow);
  ASSERT_EQ(late.size(), 1u);
  EXPECT_EQ(late[0].test, "run");
  EXPECT_EQ(late[0].outcome, api::CheckOutcome::kUnknown) << "a node is not condemned for it";
  EXPECT_EQ(late[0].message, "the check's pod ended without a report: DeadlineExceeded");
  EXPECT_EQ(check_results(ended("{", ""), "c-7", kNow)[0].test, "run");
  EXPECT_EQ(check_results(ended("{", ""), "c-7", kNow)[0].outcome, api::CheckOutcome::kUnknown);
}

}  // namespace
}  // namespace pitcrew::control
