#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "lib/base/log.hpp"
#include "lib/base/loop.hpp"
#include "lib/base/random.hpp"
#include "lib/kube/client/client.hpp"
#include "lib/kube/types/node.hpp"
#include "lib/kube/watch/watcher.hpp"
#include "lib/local/node/container_runtime.hpp"
#include "lib/local/node/pod_files.hpp"

namespace pitcrew::local {

class NodeController;

struct KubeletSettings {
  std::string node;  // its name
  std::string node_ip = "10.0.0.1";
  std::string pod_ip_prefix = "10.1.0";  // pods get <prefix>.1, .2 … in the order in which they come
  std::map<std::string, std::string> labels;
  std::map<std::string, std::string> allocatable{{"cpu", "8"}, {"memory", "32Gi"}, {"pods", "110"}};
  std::string provider_id;
  Duration restart_backoff_first =
      seconds(10);  // from the second restart on, doubled each time (Kubernetes' CrashLoopBackOff)
  Duration restart_backoff_limit = minutes(5);
  Duration restart_backoff_reset = minutes(10);            // of running
  std::optional<Duration> boot_again_after = seconds(30);  // after the node died; unset: boot() is called by somebody
  std::optional<PodFilesSettings>
      files;  // set: containers are processes here, and volumes are folders; unset: a simulation
};

// The kubelet of one simulated node: the Node object, and the life of the pods bound to it: volumes, init containers,
// containers with restarts and back-off, status, graceful deletion, and what remains of them when the node dies and
// boots again.
//
// Everything it knows of the API comes through its transport, so that a test cuts it off there (and says so by
// set_partitioned, which is what the node controller's judgement of it rests on). Lives on the loop; destroying it
// kills what runs.
class Kubelet final : private ContainerRuntime::Handler {
 public:
  // A service-account token of a pod for an audience; needed where `files` is set.
  using TokenIssuer = std::function<std::string(const std::string& audience, const ObjectKey& pod,
                                                const std::string& uid, Duration lifetime)>;

  Kubelet(Loop& loop, kube::Transport& transport, ContainerRuntime& runtime, NodeController& controller, Random random,
          KubeletSettings settings, TokenIssuer tokens = {}, Logger log = {});
  ~Kubelet() override;
  Kubelet(const Kubelet&) = delete;

  // Switches the node on; the Node object appears when it is up.
  void boot();
  // The power fails: everything on the node is gone. It boots again after boot_again_after.
  void power_off();
  // Kubelet and containers stand still in one instant, and nobody is told; power_off() ends it.
  void freeze();
  // The kubelet can't reach the API (its transport is cut by whoever calls this); containers run on.
  void set_partitioned(bool partitioned);

  const std::string& node() const { return settings_.node; }
  const std::string& boot_id() const { return boot_id_; }  // new at every boot
  bool up() const { return state_ == State::kUp; }

 private:
  enum class State { kOff, kBooting, kUp, kFrozen };
  struct PodState;
  struct ContainerState;

  void booted() override;
  void exited(const std::string& id, const ContainerExit& exit) override;
  void died(const std::string& reason) override;

  void connect();
  void disconnect();
  void tell_controller();
  void register_node();
  void register_again();
  void write_node(const Json& node);

  void on_list(const std::vector<kube::Payload>& items);
  void on_event(kube::WatchEventType type, const kube::Payload& object);
  void update_pod(const Json& object);
  void forget_pod(const std::string& uid);
  PodState* find(const std::string& uid);
  std::string free_ip() const;

  // kubelet_pods.cpp: the life of one pod
  std::unique_ptr<PodState> new_pod(const Json& object);
  void lose_containers(PodState& pod);
  void sync(PodState& pod);
  bool make_volumes(PodState& pod);
  void schedule_tokens(PodState& pod);
  void start_container(PodState& pod, ContainerState& container);
  void container_ended(PodState& pod, ContainerState& container, const ContainerExit& exit);
  bool restarts(const PodState& pod, const ContainerState& container, bool success) const;
  void restart_later(PodState& pod, ContainerState& container);
  void begin_deletion(PodState& pod, Duration grace);
  void kill_all(PodState& pod);
  void remove_pod(PodState& pod);
  void write_status(PodState& pod);
  Json status_of(const PodState& pod) const;

  Loop& loop_;
  kube::Transport& transport_;
  ContainerRuntime& runtime_;
  NodeController& controller_;
  Random random_;
  KubeletSettings settings_;
  TokenIssuer tokens_;
  Logger log_;
  State state_ = State::kOff;
  bool partitioned_ = false;
  std::string boot_id_;
  std::unique_ptr<kube::Client> client_;
  std::unique_ptr<kube::Watcher> watcher_;
  std::map<std::string, std::unique_ptr<PodState>> pods_;  // by UID
  Loop::TimerPtr boot_timer_;
  Loop::TimerPtr register_timer_;
};

}  // namespace pitcrew::local
