#pragma once

#include <functional>
#include <set>
#include <string>

#include "lib/base/delayed.hpp"
#include "lib/base/loop.hpp"
#include "lib/local/node/container_runtime.hpp"

namespace pitcrew::local {

// A node without processes: containers are whatever the model makes of them. Orders reach the model after `latency`;
// its exits reach the kubelet after the same. A frozen node's model hears nothing and its exits reach nobody. Lives on
// the loop.
class SimulatedRuntime final : public ContainerRuntime {
 public:
  // Called on the loop. Init containers never reach the model: they end well by themselves.
  struct Model {
    std::function<void(const ContainerSpec& spec)> started;
    std::function<void(const std::string& id, int number)> signaled;
    // It is gone already, whatever the model does; so is all that it started.
    std::function<void(const std::string& id)> killed;
    // The node stands still: what runs on it acts no more.
    std::function<void()> frozen;
  };

  SimulatedRuntime(Loop& loop, Model model, Duration latency = milliseconds(20), Duration boot_time = seconds(1));

  void boot(Handler& handler) override;
  void start(ContainerSpec spec) override;
  void signal(const std::string& id, int number) override;
  void kill(const std::string& id) override;
  void freeze() override;
  void power_off() override;

  // The model says that a container has ended. Ignored where it isn't running.
  void exit(const std::string& id, ContainerExit exit);
  bool running(const std::string& id) const { return running_.contains(id); }

 private:
  void later(Duration delay, std::function<void()> task);
  void tell_exit(const std::string& id, const ContainerExit& exit);

  Model model_;
  Duration latency_;
  Duration boot_time_;
  Handler* handler_ = nullptr;
  uint64_t boot_ = 0;  // tasks of an earlier boot do nothing
  bool frozen_ = false;
  std::set<std::string> running_;
  Delayed delayed_;
};

}  // namespace pitcrew::local
