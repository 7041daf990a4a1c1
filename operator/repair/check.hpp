#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/api/node_health.hpp"
#include "operator/repair/check_limit.hpp"
#include "operator/repair/order.hpp"

namespace pitcrew::control {

inline constexpr char kRequestCheck[] = "pitcrew.dev/request-check";  // annotation of a NodeHealth: the request's id
inline constexpr char kCheckId[] = "pitcrew.dev/check";               // annotation of the pod: the same

struct CheckSettings {
  std::string image;  // of pitcrew-check; empty: checks are refused
  std::string ns = "pitcrew-system";
  Duration deadline = minutes(30);
  bool after_faults = true;  // a node with GPUs that has had a fault is checked before it takes a job
  CheckLimit limit;
};

// A check's pod as the caches show it.
struct CheckPod {
  bool there = false;
  bool ended = false;
  bool stuck = false;  // its container can't be started: no such image, no right to it
};

enum class CheckStep {
  kNothing,  // none is asked for or due, or it is answered
  kWait,     // for jobs to leave, or for the pod
  kCreate,
  kCollect,  // the pod has ended or never will: its answer is read and written, then it goes
  kRemove,   // a pod that nobody asked for, or whose answer is written
  kRefuse,   // it can't be done, and `why` is the answer
};
struct CheckPlan {
  CheckStep step = CheckStep::kNothing;
  std::string id;
  std::string why;
  bool requested = false;  // by a person; else after a fault
  Instant since;           // of that fault
};

// What to do about the check that is asked for on a NodeHealth, or due after a fault. Never beside a job; how many run
// at once is said by checks_to_begin(). Pure.
//
// Due is one, once for each fault, where a node with GPUs is well again, takes pods and stands idle, and no deep check
// has passed since its newest fault.
CheckPlan plan_check(const NodeCare& care, const CheckPod& pod, const CheckSettings& settings);

// One pod for each NodeHealth: its name follows from the NodeHealth's.
std::string check_pod_name(const api::NodeHealth& health);
// It asks for all GPUs and EFA devices of the node, so that no job comes beside it; tolerates the quarantine and a
// cordon; has a deadline; may ask the API nothing; and has a folder on the disk of the node's pods, which is checked
// too. It is the NodeHealth's, and goes with it.
Json check_pod(const NodeCare& care, const std::string& id, const CheckSettings& settings);

// What a pod that has ended or is stuck answers, from its JSON: the report in its container's termination message; else
// one result, named "run", of outcome Unknown, that says why there is none: nobody condemns a node for it.
std::vector<api::CheckResult> check_results(const Json& pod, const std::string& id, Instant now);

}  // namespace pitcrew::control
