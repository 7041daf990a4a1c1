#pragma once

#include <functional>
#include <string>

#include "lib/base/clock.hpp"
#include "lib/kube/transport/transport.hpp"

namespace pitcrew::control {

// Passes requests on and tells each answer: what rest_client_requests_total and its durations are counted by. Lives on
// the loop, as the transport beneath, which outlives it.
class CountingTransport final : public kube::Transport {
 public:
  // `code`: the HTTP status, or "<error>" where nobody answered. A watch counts once, when it ends.
  using Tell = std::function<void(const kube::Request& request, const std::string& code, Duration took)>;

  CountingTransport(Clock& clock, kube::Transport& beneath, Tell tell)
      : clock_(clock), beneath_(beneath), tell_(std::move(tell)) {}

  [[nodiscard]] kube::CallPtr send(kube::Request request, Answer answer) override;
  [[nodiscard]] kube::CallPtr watch(kube::Request request, WatchSink sink) override;

 private:
  Clock& clock_;
  kube::Transport& beneath_;
  Tell tell_;
};

}  // namespace pitcrew::control
