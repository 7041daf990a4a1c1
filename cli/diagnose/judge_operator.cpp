#include <algorithm>

#include "cli/diagnose/judge.hpp"
#include "cli/show/words.hpp"

namespace pitcrew::cli {
namespace {

constexpr Duration kPatience = seconds(30);  // of a new job, until somebody should have looked at it

bool alive(const Facts& facts, const OperatorFact& lease) {
  return !lease.holder.empty() && lease.renewed && facts.now - *lease.renewed < lease.duration * 2;
}

// While nobody leads, training goes on and nothing else does.
int weight_of_absence(const Facts& facts) { return facts.job.status.phase == api::Phase::kRunning ? 60 : 98; }

}  // namespace

void judge_operator(const Facts& facts, Findings& findings) {
  const auto& job = facts.job;
  if (api::terminal(job.status.phase)) return;
  const bool led = std::any_of(facts.operators.begin(), facts.operators.end(),
                               [&](const OperatorFact& lease) { return alive(facts, lease); });
  if (facts.operators_known && !led) {
    Finding finding{"NoLeader", weight_of_absence(facts), "", {}, "", ""};
    if (facts.operators.empty()) {
      finding.title = "No operator runs in this cluster: nobody looks after TrainingJobs.";
      finding.evidence = {"there is no Lease pitcrew-operator in any namespace"};
      finding.remedy = "install it: helm install pitcrew charts/pitcrew --namespace pitcrew-system";
      finding.command = "kubectl get pods -A -l app.kubernetes.io/name=pitcrew";
    } else {
      const OperatorFact& lease = facts.operators.front();
      finding.title = "No operator leads: nothing is started or recovered until one does.";
      finding.evidence = {lease.holder.empty()
                              ? "the Lease in " + lease.ns + " was given back and nobody took it"
                              : lease.holder + " renewed its Lease last " +
                                    (lease.renewed ? ago(facts.now, *lease.renewed) : std::string("never"))};
      finding.remedy = "see why its pods don't run, or can't reach the API server";
      finding.command = "kubectl -n " + lease.ns + " get deployments,pods";
    }
    findings.push_back(std::move(finding));
    return;
  }
  const Duration age = facts.now - job.metadata.creation_time.value_or(facts.now);
  const bool invalid = std::any_of(facts.events.begin(), facts.events.end(),
                                   [](const EventFact& event) { return event.reason == "InvalidSpec"; });
  if (job.status.observed_generation >= job.metadata.generation || invalid || age < kPatience) return;
  if (job.status.observed_generation == 0 && led) {
    findings.push_back({"NotLookedAfter",
                        92,
                        "An operator leads, but it has never looked at this job.",
                        {"status.observedGeneration is 0, the job is " + spoken(age) + " old"},
                        "the operator may watch another namespace (watchNamespace), or may not read this one",
                        "kubectl get configmap -A -l app.kubernetes.io/name=pitcrew -o yaml | grep watchNamespace"});
    return;
  }
  findings.push_back({"OperatorBehind",
                      40,
                      "The operator has not looked at the last change of the job yet.",
                      {"generation " + std::to_string(job.metadata.generation) +
                       ", looked at: " + std::to_string(job.status.observed_generation)},
                      "if it stays so, the operator is overloaded or can't write: see its log",
                      "kubectl get lease -A | grep pitcrew-operator"});
}

void judge_spec(const Facts& facts, Findings& findings) {
  const auto& job = facts.job;
  const std::string& name = job.metadata.name;
  if (job.metadata.deletion_time) {
    findings.push_back(
        {"BeingDeleted",
         100,
         "The job is being deleted.",
         {"since " + clock_time(facts.now, *job.metadata.deletion_time) +
          (job.metadata.finalizers.empty() ? "" : "; finalizers left: " + some_of(job.metadata.finalizers))},
         "it doesn't come back; apply it again once it is gone",
         kubectl(facts, "get pods -l pitcrew.dev/job=" + name)});
  }
  if (job.spec.lifecycle.suspend && !api::terminal(job.status.phase)) {
    findings.push_back({"Suspended",
                        99,
                        "The job is suspended: somebody set lifecycle.suspend.",
                        {job.status.progress.step ? "it stands at step " + grouped(job.status.progress.step->value)
                                                  : "it has not started"},
                        "let it go on",
                        kubectl(facts, "patch trainingjob " + name +
                                           " --type merge -p '{\"spec\":{\"lifecycle\":{\"suspend\":false}}}'")});
  }
  for (auto event = facts.events.rbegin(); event != facts.events.rend(); ++event) {
    if (event->reason != "InvalidSpec") continue;
    findings.push_back({"InvalidSpec",
                        97,
                        "The operator can't read the job's spec, and leaves it alone until it is mended.",
                        {event->note},
                        "mend the field it names and apply again; validate says everything at once",
                        kubectl(facts, "get trainingjob " + name + " -o yaml") + " | pitcrew validate -"});
    break;
  }
  const Condition* failed = condition(facts, "Failed");
  if (failed == nullptr || !failed->status) return;
  if (failed->reason == "DeadlineExceeded" || failed->reason == "StartDeadlineExceeded") {
    const bool start = failed->reason == "StartDeadlineExceeded";
    findings.push_back({failed->reason,
                        96,
                        start ? "The job had not trained its first step within lifecycle.startDeadline, and was ended."
                              : "The job's time was up (lifecycle.activeDeadline): it saved and was ended.",
                        {failed->message},
                        start ? "the events say what it waited for; apply it again with a longer startDeadline"
                              : "apply it again with a longer activeDeadline: it goes on from its newest checkpoint",
                        pitcrew(facts, "timeline " + name)});
  }
}

}  // namespace pitcrew::cli
