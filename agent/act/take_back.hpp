#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lib/base/log.hpp"
#include "lib/base/loop.hpp"

namespace pitcrew::kube {
class Transport;
}

namespace pitcrew::agent {

struct TakeBackSettings {
  std::string ns;                      // of the agents' DaemonSet
  std::string daemon_set;              // is deleted first, so that no agent puts anything back; empty: there is none
  std::string pods;                    // label selector of its pods
  Duration pods_within = seconds(60);  // how long they are waited for: pods of a lost node never end
  Duration look_every = seconds(1);    // at the pods
  int attempts = 8;                    // for each node: its kubelet writes its status too
  Duration retry_after = milliseconds(200);
  double requests_per_second = 200;
};

struct TakenBack {
  size_t nodes = 0;                 // that there are
  size_t changed = 0;               // that had something of ours
  std::vector<std::string> kept;    // whose cordon is somebody else's by now
  std::vector<std::string> held;    // that people hold as they are (pitcrew.dev/hold)
  std::vector<std::string> failed;  // "node: why"
};

// What an uninstall does to nodes: agents' label, taint, annotation and condition go, and the cordons that are still
// ours. NodeHealth stays. One request at a time, each node by the version that was just read; what fails is told at the
// end, not given up at.
//
// Lives on the loop; the transport outlives it. Ends by destruction, or when `done` was called: an error where the
// nodes could not be listed.
class TakeBack {
 public:
  using Done = std::function<void(Result<TakenBack>)>;
  TakeBack(Loop& loop, kube::Transport& transport, uint64_t seed, TakeBackSettings settings, Logger log, Done done);
  ~TakeBack();
  TakeBack(const TakeBack&) = delete;

  void start();

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace pitcrew::agent
