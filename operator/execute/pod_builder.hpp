#pragma once

#include <string>

#include "lib/api/training_job.hpp"
#include "operator/decide/snapshot.hpp"

namespace pitcrew::control {

struct PodBuilderSettings {
  std::string launcher_image;
};

// Grace for saving where the template names none: pods are stopped by the channel first, so this is for direct
// deletions.
inline constexpr int64_t kDefaultGraceSeconds = 60;

// The pod of one serial: the job's template with exactly these changes (docs name them too):
//   name, namespace, owner reference, our labels and annotations (channel.json, do-not-disrupt of Karpenter and the
//   autoscaler); restartPolicy OnFailure and a grace period where the template says nothing; a required affinity to
//   `node` if it isn't empty; an init container that brings the launcher; the training container's command behind the
//   launcher, our variables and mounts; our volumes; and the memory tier's size on top of the training container's
//   memory request and limit, where it has them.
// A pod doesn't know its slot: that comes with each epoch.
Json build_pod(const api::TrainingJob& job, Serial serial, const std::string& node, const std::string& channel_json,
               const PodBuilderSettings& settings);

// The job's PodDisruptionBudget: no pod of it is evicted as long as its launcher runs, one that isn't ready always may
// be. A number above any gang's size stands in for `maxUnavailable: 0`, which the disruption controller can't work out
// for pods whose owner has no scale.
Json build_budget(const api::TrainingJob& job);
std::string budget_name(const api::TrainingJob& job);

// What such a pod needs of a node. An error where the template can't be read as a pod.
Result<PodShape> shape_of(const api::TrainingJob& job, const PodBuilderSettings& settings);

// Ranks of a pod: processesPerReplica, else the training container's GPUs, else 1.
uint32_t processes_of(const api::TrainingJob& job);

}  // namespace pitcrew::control
