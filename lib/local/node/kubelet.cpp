#include "lib/local/node/kubelet.hpp"

#include <algorithm>
#include <set>

#include "lib/base/digest.hpp"
#include "lib/local/node/kubelet_state.hpp"
#include "lib/local/node/node_controller.hpp"

namespace pitcrew::local {
namespace {

constexpr Duration kRetry = seconds(1);
constexpr int kAddresses = 250;  // pods of a node at a time

}  // namespace

Kubelet::Kubelet(Loop& loop, kube::Transport& transport, ContainerRuntime& runtime, NodeController& controller,
                 Random random, KubeletSettings settings, TokenIssuer tokens, Logger log)
    : loop_(loop),
      transport_(transport),
      runtime_(runtime),
      controller_(controller),
      random_(random),
      settings_(std::move(settings)),
      tokens_(std::move(tokens)),
      log_(log.with({{"node", settings_.node}})) {}

Kubelet::~Kubelet() { disconnect(); }

void Kubelet::boot() {
  if (state_ != State::kOff) return;
  boot_timer_.reset();
  state_ = State::kBooting;
  boot_id_ = hex64(random_()) + hex64(random_());
  runtime_.boot(*this);
}

void Kubelet::power_off() {
  if (state_ == State::kOff) return;
  disconnect();
  runtime_.power_off();
}

void Kubelet::freeze() {
  if (state_ != State::kUp) return;
  state_ = State::kFrozen;
  disconnect();
  runtime_.freeze();
  tell_controller();
}

void Kubelet::set_partitioned(bool partitioned) {
  if (partitioned_ == partitioned) return;
  partitioned_ = partitioned;
  tell_controller();
  if (partitioned_ || state_ != State::kUp) return;
  connect();
  register_node();
}

void Kubelet::tell_controller() {
  if (state_ == State::kUp && !partitioned_) {
    controller_.heard(settings_.node);
  } else {
    controller_.silent(settings_.node);
  }
}

void Kubelet::booted() {
  if (state_ != State::kBooting) return;
  state_ = State::kUp;
  log_.info("node is up", {{"boot", boot_id_}});
  connect();
  tell_controller();
  register_node();
}

void Kubelet::died(const std::string& reason) {
  if (state_ == State::kOff) return;
  log_.warning("node is off", {{"reason", reason}});
  state_ = State::kOff;
  disconnect();
  tell_controller();
  for (auto& [uid, pod] : pods_) lose_containers(*pod);
  if (settings_.boot_again_after) boot_timer_ = loop_.after(*settings_.boot_again_after, [this] { boot(); });
}

// A connection of its own for each boot: what was under way in the last one is dropped.
void Kubelet::connect() {
  disconnect();
  client_ = std::make_unique<kube::Client>(loop_, transport_, random_());
  kube::WatchScope scope;
  scope.field_selector = "spec.nodeName=" + settings_.node;
  watcher_ = std::make_unique<kube::Watcher>(
      loop_, transport_, kube::Pod::type(), random_(), scope, kube::ReflectorSettings{}, log_,
      kube::Watcher::Sink{[this](std::vector<kube::Payload> items) { on_list(items); },
                          [this](kube::WatchEventType type, const kube::Payload& object) { on_event(type, object); }});
  watcher_->start();
}

void Kubelet::disconnect() {
  watcher_.reset();
  client_.reset();
  register_timer_.reset();
  for (auto& [uid, pod] : pods_) {
    pod->writing = false;
    pod->removing = false;
    pod->retry.reset();
  }
}

void Kubelet::register_again() {
  register_timer_ = loop_.after(kRetry, [this] { register_node(); });
}

void Kubelet::register_node() {
  Json metadata{{"name", settings_.node}, {"labels", {{"kubernetes.io/hostname", settings_.node}}}};
  for (const auto& [name, value] : settings_.labels) metadata["labels"][name] = value;
  Json spec = Json::object();
  if (!settings_.provider_id.empty()) spec["providerID"] = settings_.provider_id;
  const Json node{{"apiVersion", "v1"}, {"kind", "Node"}, {"metadata", metadata}, {"spec", spec}};
  client_->create_raw(kube::Node::type(), node, [this](Result<kube::Payload> created) {
    if (!created && created.error().code != Code::kAlreadyExists) return register_again();
    client_->get_raw(kube::Node::type(), {"", settings_.node}, [this](Result<kube::Payload> node) {
      if (!node) return register_again();
      auto json = node->json();
      if (json) write_node(**json);
    });
  });
}

void Kubelet::write_node(const Json& node) {
  kube::Patch status;
  status.subresource = "status";
  status.body = {{"status",
                  {{"conditions", conditions_with_ready(node, "True", "KubeletReady", "kubelet is posting ready status",
                                                        loop_.now())},
                   {"addresses", Json::array({{{"type", "InternalIP"}, {"address", settings_.node_ip}}})},
                   {"allocatable", settings_.allocatable},
                   {"capacity", settings_.allocatable},
                   {"nodeInfo", {{"bootID", boot_id_}}}}}};
  client_->patch_raw(kube::Node::type(), {"", settings_.node}, status, [this](Result<kube::Payload> patched) {
    if (!patched) register_again();
  });
  if (!has_unreachable_taint(node)) return;
  kube::Patch taints;
  taints.body = {{"spec", {{"taints", taints_without_unreachable(node)}}}};
  client_->patch_raw(kube::Node::type(), {"", settings_.node}, taints, [this](Result<kube::Payload> patched) {
    if (!patched) register_again();
  });
}

Kubelet::PodState* Kubelet::find(const std::string& uid) {
  const auto found = pods_.find(uid);
  return found == pods_.end() ? nullptr : found->second.get();
}

std::string Kubelet::free_ip() const {
  std::set<std::string> taken;
  for (const auto& [uid, pod] : pods_) taken.insert(pod->ip);
  for (int last = 1; last <= kAddresses; ++last) {
    const std::string ip = settings_.pod_ip_prefix + "." + std::to_string(last);
    if (!taken.contains(ip)) return ip;
  }
  return settings_.pod_ip_prefix + ".251";
}

void Kubelet::on_list(const std::vector<kube::Payload>& items) {
  std::set<std::string> present;
  for (const kube::Payload& item : items) {
    auto json = item.json();
    if (!json) continue;
    present.insert((**json)["metadata"].value("uid", ""));
    update_pod(**json);
  }
  std::vector<std::string> gone;
  for (const auto& [uid, pod] : pods_) {
    if (!present.contains(uid)) gone.push_back(uid);
  }
  for (const std::string& uid : gone) forget_pod(uid);
}

void Kubelet::on_event(kube::WatchEventType type, const kube::Payload& object) {
  auto json = object.json();
  if (!json) return;
  if (type == kube::WatchEventType::kDeleted) return forget_pod((**json)["metadata"].value("uid", ""));
  update_pod(**json);
}

void Kubelet::update_pod(const Json& object) {
  const std::string uid = object["metadata"].value("uid", "");
  PodState* pod = find(uid);
  if (pod == nullptr) {
    pod = (pods_[uid] = new_pod(object)).get();
  } else {
    const bool annotations_changed =
        pod->object["metadata"].value("annotations", Json()) != object["metadata"].value("annotations", Json());
    pod->object = object;
    if (annotations_changed && pod->files && pod->started) {
      if (const Status refreshed = pod->files->refresh(object); !refreshed) {
        log_.warning("a volume could not be refreshed", {{"pod", pod->key.name}, {"error", refreshed.error().message}});
      }
    }
  }
  if (object["metadata"].contains("deletionTimestamp")) {
    return begin_deletion(*pod, seconds(object["metadata"].value("deletionGracePeriodSeconds", 30)));
  }
  sync(*pod);
}

// The object is gone from the API: what still runs has no right to.
void Kubelet::forget_pod(const std::string& uid) {
  PodState* pod = find(uid);
  if (pod == nullptr) return;
  kill_all(*pod);
  if (pod->files) pod->files->remove();
  pods_.erase(uid);
}

void Kubelet::exited(const std::string& id, const ContainerExit& exit) {
  if (state_ != State::kUp) return;
  PodState* pod = find(id.substr(0, id.find('/')));
  if (pod == nullptr) return;
  for (auto& container : pod->containers) {
    if (container->id == id && container->run == ContainerState::Run::kRunning)
      return container_ended(*pod, *container, exit);
  }
}

}  // namespace pitcrew::local
