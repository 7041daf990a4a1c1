#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "lib/base/loop.hpp"
#include "lib/kube/transport/transport.hpp"
#include "lib/local/api/api_server.hpp"

namespace pitcrew::local {

// What goes wrong with one request; the default is nothing.
struct RequestFault {
  Duration request_delay{0};             // on the way there
  Duration reply_delay{0};               // on the way back
  std::optional<Error> before;           // the server never sees it
  std::optional<Error> lost_reply;       // the server does it, the caller sees this instead of the answer
  std::optional<kube::Response> answer;  // given by something in front of the server: 429 with Retry-After, 503 …
  bool black_hole = false;               // the server never sees it and nobody answers until its timeout
};
kube::Response too_many_requests(Duration retry_after);
kube::Response gone(const std::string& message = "The resourceVersion for the provided list is too old.");

// What goes wrong with one event of a watch.
struct WatchFault {
  Duration delay{0};    // later events of the watch wait behind it
  bool repeat = false;  // told twice
  bool gone = false;    // an ERROR event 410 in its place, and the end
  bool cut = false;     // the connection breaks before it
};

// A client's way to an ApiServer of the same loop. Every program of a simulation has one of its own, so that it can be
// cut off alone. Requests that were sent are carried out even if their Call is destroyed: a dead leader's bytes under
// way.
class MemoryTransport final : public kube::Transport {
 public:
  using RequestFaults = std::function<RequestFault(const kube::Request&)>;
  using WatchFaults = std::function<WatchFault(const kube::Request&, const kube::WatchEvent&)>;

  MemoryTransport(Loop& loop, ApiServer& server);
  ~MemoryTransport() override;

  // Asked once for every request (opening a watch included), and for every event. Empty: no faults.
  void set_faults(RequestFaults requests, WatchFaults watches);

  // Cuts the client off: requests are answered by nobody until their timeouts, watches fall silent without an end. Once
  // it is back, watches that missed something stay silent for ever, as half-open connections do; the client's idle
  // limit ends them.
  void set_connected(bool connected);
  bool connected() const;
  // Breaks all watches with an error.
  void break_watches();

  [[nodiscard]] kube::CallPtr send(kube::Request request, Answer answer) override;
  [[nodiscard]] kube::CallPtr watch(kube::Request request, WatchSink sink) override;

  uint64_t requests() const;

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace pitcrew::local
