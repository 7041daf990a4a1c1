#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/json.hpp"
#include "lib/base/loop.hpp"
#include "lib/local/node/kubelet.hpp"

namespace pitcrew::local {

// One container of a pod on this node, over all its restarts.
struct Kubelet::ContainerState {
  enum class Run { kWaiting, kRunning, kEnded };

  Json spec;
  std::string name;
  bool init = false;
  bool sidecar = false;  // an init container with restartPolicy Always
  Run run = Run::kWaiting;
  std::string id;  // of the present or last run
  int restarts = 0;
  int failures = 0;  // in a row: what the back-off grows by
  Instant started;
  std::string waiting_reason = "PodInitializing";
  std::string waiting_message;
  Json ended;  // state.terminated of the last run, while it has not been started again
  Json last;   // lastState.terminated
  bool succeeded = false;
  Loop::TimerPtr restart;
};

struct Kubelet::PodState {
  std::string uid;
  ObjectKey key;
  Json object;
  std::string ip;
  Instant start_time;
  std::string restart_policy = "Always";
  bool started = false;      // volumes are there
  bool fresh_memory = true;  // nothing of PITCREW_MEMORY has survived
  std::string phase = "Pending";
  bool finished = false;  // Succeeded or Failed
  bool deleting = false;
  bool removing = false;  // its last status is written or being written, then the object goes
  std::optional<PodFiles> files;
  std::vector<std::unique_ptr<ContainerState>> containers;  // init containers first
  std::string written;                                      // the status that the API has from us
  bool writing = false;
  bool write_again = false;
  Loop::TimerPtr retry;
  Loop::TimerPtr grace;
  Loop::TimerPtr tokens;

  bool any_running() const {
    for (const auto& container : containers) {
      if (container->run == ContainerState::Run::kRunning) return true;
    }
    return false;
  }
};

}  // namespace pitcrew::local
