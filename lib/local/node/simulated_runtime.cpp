#include "lib/local/node/simulated_runtime.hpp"

#include <utility>

namespace pitcrew::local {

SimulatedRuntime::SimulatedRuntime(Loop& loop, Model model, Duration latency, Duration boot_time)
    : model_(std::move(model)), latency_(latency), boot_time_(boot_time), delayed_(loop) {}

void SimulatedRuntime::later(Duration delay, std::function<void()> task) {
  delayed_.after(delay, [this, boot = boot_, task = std::move(task)] {
    if (boot == boot_) task();
  });
}

void SimulatedRuntime::boot(Handler& handler) {
  handler_ = &handler;
  ++boot_;
  frozen_ = false;
  later(boot_time_, [this] { handler_->booted(); });
}

void SimulatedRuntime::start(ContainerSpec spec) {
  if (frozen_) return;
  running_.insert(spec.id);
  if (spec.init) {
    later(latency_ * 2, [this, id = spec.id] {
      if (!frozen_ && running_.erase(id) > 0) handler_->exited(id, {});
    });
    return;
  }
  later(latency_, [this, spec = std::move(spec)] {
    if (!frozen_ && running_.contains(spec.id) && model_.started) model_.started(spec);
  });
}

void SimulatedRuntime::signal(const std::string& id, int number) {
  if (frozen_) return;
  later(latency_, [this, id, number] {
    if (!frozen_ && running_.contains(id) && model_.signaled) model_.signaled(id, number);
  });
}

void SimulatedRuntime::kill(const std::string& id) {
  if (frozen_ || running_.erase(id) == 0) return;
  if (model_.killed) model_.killed(id);
  ContainerExit exit;
  exit.exit_code = 137;
  exit.signal = 9;
  tell_exit(id, exit);
}

void SimulatedRuntime::freeze() {
  if (std::exchange(frozen_, true)) return;
  if (model_.frozen) model_.frozen();
}

void SimulatedRuntime::power_off() {
  if (handler_ == nullptr) return;
  ++boot_;
  frozen_ = false;
  const auto gone = std::exchange(running_, {});
  for (const std::string& id : gone) {
    if (model_.killed) model_.killed(id);
  }
  later(Duration(0), [this] { handler_->died("the power failed"); });
}

void SimulatedRuntime::exit(const std::string& id, ContainerExit exit) {
  if (frozen_ || running_.erase(id) == 0) return;
  tell_exit(id, exit);
}

void SimulatedRuntime::tell_exit(const std::string& id, const ContainerExit& exit) {
  later(latency_, [this, id, exit] {
    if (!frozen_) handler_->exited(id, exit);
  });
}

}  // namespace pitcrew::local
