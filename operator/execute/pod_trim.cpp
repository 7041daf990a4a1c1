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
kube::Ptr<kube::Pod> footprint(const kube::Pod& pod) {
  auto kept = std::make_shared<kube::Pod>();
  kept->metadata.name = pod.metadata.name;
  kept->metadata.ns = pod.metadata.ns;
  kept->metadata.uid = pod.metadata.uid;
  kept->metadata.resource_version = pod.metadata.resource_version;
  kept->metadata.deletion_time = pod.metadata.deletion_time;
  kept->node_name = pod.node_name;
  kept->required_node = pod.required_node;
  kept->requests = pod.requests;
  kept->phase = pod.phase;
  return kept;
}

}  // namespace

// 60 bits of a hash: short enough to lie inside a std::string.
std::string channel_mark(const std::string& channel_json) {
  return net::hex(net::sha256(channel_json).substr(0, 8)).substr(0, 15);
}

kube::Ptr<kube::Pod> trim_pod(const kube::Ptr<kube::Pod>& pod) {
  if (!ours(*pod)) return footprint(*pod);
  auto kept = std::make_shared<kube::Pod>(*pod);
  ObjectMeta& metadata = kept->metadata;
  std::erase_if(metadata.labels, [](const auto& label) { return label.first != api::label::kSerial; });
  std::erase_if(metadata.owners, [](const OwnerReference& owner) { return !owner.controller; });
  metadata.owners.front().api_version.clear();
  metadata.owners.front().name.clear();
  std::erase_if(metadata.annotations, [](const auto& entry) { return entry.first != api::annotation::kChannel; });
  if (const auto channel = metadata.annotations.find(api::annotation::kChannel);
      channel != metadata.annotations.end()) {
    channel->second = channel_mark(channel->second);
  }
  metadata.finalizers.clear();
  if (!kept->node_name.empty()) kept->required_node.clear();
  kept->host_ip.clear();
  // A pod that is there has been placed: what its template asked for is the job's to know.
  kept->node_selector.clear();
  kept->tolerations.clear();
  return kept;
}

}  // namespace pitcrew::control
