#include "operator/execute/pod_trim.hpp"

#include "lib/api/training_job.hpp"
#include "lib/net/crypto.hpp"

namespace pitcrew::control {
namespace {

bool ours(const kube::Pod& pod) {
  const OwnerReference* owner = pod.metadata.controller();
  return owner != nullptr && owner->kind == api::TrainingJob::type().kind &&
         owner->api_version.starts_with(std::string(api::kGroup) + "/");
}

// Where it is, what it takes, and whether it still does.
std::shared_ptr<kube::Pod> footprint(const kube::Pod& pod) {
  auto kept = std::make_shared<kube::Pod>();
  kept->metadata.name = pod.metadata.name;
  kept->metadata.ns = pod.metadata.ns;
  kept->metadata.uid = pod.metadata.uid;
  kept->metadata.resource_version = pod.metadata.resource_version;
  kept->metadata.deletion_time = pod.metadata.deletion_time;
  kept->node_name = pod.node_name;
  if (pod.node_name.empty()) kept->required_node = pod.required_node;
  kept->requests = pod.requests;
  kept->phase = pod.phase;
  return kept;
}

}  // namespace

// 60 bits of a hash: short enough to lie inside a std::string.
std::string channel_mark(const std::string& channel_json) {
  return net::hex(net::sha256(channel_json).substr(0, 8)).substr(0, 15);
}

// Copied field by field, not copied and cut down: what is let go again between what is kept is memory lost.
kube::Ptr<kube::Pod> trim_pod(const kube::Ptr<kube::Pod>& pod) {
  auto kept = footprint(*pod);
  if (!ours(*pod)) return kept;
  ObjectMeta& metadata = kept->metadata;
  metadata.generation = pod->metadata.generation;
  metadata.creation_time = pod->metadata.creation_time;
  const OwnerReference& owner = *pod->metadata.controller();
  metadata.owners.push_back({"", owner.kind, "", owner.uid, true, owner.block_owner_deletion});
  if (const auto serial = pod->metadata.labels.find(api::label::kSerial); serial != pod->metadata.labels.end()) {
    metadata.labels.insert(*serial);
  }
  const auto channel = pod->metadata.annotations.find(api::annotation::kChannel);
  if (channel != pod->metadata.annotations.end()) {
    metadata.annotations[api::annotation::kChannel] = channel_mark(channel->second);
  }
  kept->priority_class = pod->priority_class;
  kept->reason = pod->reason;
  kept->message = pod->message;
  kept->pod_ip = pod->pod_ip;
  kept->start_time = pod->start_time;
  kept->initializing = pod->initializing;
  kept->containers = pod->containers;
  kept->scheduled = pod->scheduled;
  kept->unschedulable_message = pod->unschedulable_message;
  kept->ready = pod->ready;
  return kept;
}

}  // namespace pitcrew::control
