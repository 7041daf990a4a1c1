#include "lib/local/node/node_controller.hpp"

#include "lib/kube/types/node.hpp"
#include "lib/kube/types/pod.hpp"

namespace pitcrew::local {
namespace {

constexpr Duration kRetry = seconds(1);

constexpr char kUnreachable[] = "node.kubernetes.io/unreachable";

const Json& list_of(const Json& node, const char* part, const char* key) {
  static const Json empty = Json::array();
  const auto found = node.find(part);
  if (found == node.end() || !found->contains(key) || !(*found)[key].is_array()) return empty;
  return (*found)[key];
}

}  // namespace

Json conditions_with_ready(const Json& node, const std::string& status, const std::string& reason,
                           const std::string& message, Instant now) {
  Json conditions = Json::array();
  for (const Json& condition : list_of(node, "status", "conditions")) {
    if (condition.value("type", "") != "Ready") conditions.push_back(condition);
  }
  conditions.push_back({{"type", "Ready"},
                        {"status", status},
                        {"reason", reason},
                        {"message", message},
                        {"lastTransitionTime", to_rfc3339(now)}});
  return conditions;
}

bool has_unreachable_taint(const Json& node) {
  for (const Json& taint : list_of(node, "spec", "taints")) {
    if (taint.value("key", "") == kUnreachable) return true;
  }
  return false;
}

Json taints_without_unreachable(const Json& node) {
  Json taints = Json::array();
  for (const Json& taint : list_of(node, "spec", "taints")) {
    if (taint.value("key", "") != kUnreachable) taints.push_back(taint);
  }
  return taints;
}

NodeController::NodeController(Loop& loop, kube::Transport& transport, uint64_t seed, NodeControllerSettings settings,
                               Logger log)
    : loop_(loop), settings_(settings), log_(std::move(log)), client_(loop, transport, seed) {}

NodeController::~NodeController() = default;

void NodeController::heard(const std::string& node) { silent_.erase(node); }

void NodeController::silent(const std::string& node) {
  if (silent_.contains(node)) return;
  silent_[node] = loop_.after(settings_.grace, [this, node] { mark(node); });
}

void NodeController::mark_again(const std::string& node) {
  const auto silent = silent_.find(node);
  if (silent != silent_.end()) silent->second = loop_.after(kRetry, [this, node] { mark(node); });
}

void NodeController::mark(const std::string& node) {
  client_.get_raw(kube::Node::type(), {"", node}, [this, node](Result<kube::Payload> object) {
    if (!silent_.contains(node)) return;
    if (!object) return object.error().code == Code::kNotFound ? void() : mark_again(node);
    auto json = object->json();
    if (json) write_mark(node, **json);
  });
}

void NodeController::write_mark(const std::string& node, const Json& object) {
  kube::Patch status;
  status.subresource = "status";
  status.body = {{"status",
                  {{"conditions", conditions_with_ready(object, "Unknown", "NodeStatusUnknown",
                                                        "Kubelet stopped posting node status.", loop_.now())}}}};
  client_.patch_raw(kube::Node::type(), {"", node}, status, [this, node](Result<kube::Payload> patched) {
    const auto silent = silent_.find(node);
    if (silent == silent_.end()) return;
    if (!patched) return mark_again(node);
    log_.info("node is not ready: its kubelet is silent", {{"node", node}});
    silent->second = loop_.after(settings_.evict_after, [this, node] { evict(node); });
  });
  Json taints = taints_without_unreachable(object);
  for (const char* effect : {"NoSchedule", "NoExecute"}) taints.push_back({{"key", kUnreachable}, {"effect", effect}});
  kube::Patch taint;
  taint.body = {{"spec", {{"taints", std::move(taints)}}}};
  client_.patch_raw(kube::Node::type(), {"", node}, taint, [](Result<kube::Payload>) {});
}

void NodeController::evict(const std::string& node) {
  kube::ListOptions options;
  options.field_selector = "spec.nodeName=" + node;
  client_.list<kube::Pod>(options, [this, node](Result<kube::List<kube::Pod>> pods) {
    const auto silent = silent_.find(node);
    if (silent == silent_.end()) return;
    if (!pods) {
      silent->second = loop_.after(kRetry, [this, node] { evict(node); });
      return;
    }
    for (const auto& pod : pods->items) {
      if (pod->deleting()) continue;
      kube::RemoveOptions remove;
      remove.preconditions.uid = pod->metadata.uid;
      client_.remove<kube::Pod>(pod->metadata.key(), remove, [](Status) {});
    }
  });
}

}  // namespace pitcrew::local
