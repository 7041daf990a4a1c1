#pragma once

#include <memory>
#include <optional>
#include <string>

#include "lib/base/log.hpp"
#include "lib/base/random.hpp"
#include "lib/net/asio_loop.hpp"
#include "lib/net/metrics/metrics_endpoint.hpp"
#include "operator/app/channel_keeper.hpp"
#include "operator/app/config.hpp"
#include "operator/app/counting_transport.hpp"
#include "operator/app/metrics.hpp"
#include "operator/app/operator.hpp"
#include "operator/app/webhook.hpp"
#include "operator/channel/websocket_channel.hpp"

namespace pitcrew::control {

// How pitcrew-operator ends.
inline constexpr int kExitStopped = 0;
inline constexpr int kExitFailed = 1;            // a port is taken, the stop took too long …
inline constexpr int kExitBadConfiguration = 2;  // flags, file, surroundings
inline constexpr int kExitLeaseLost = 3;         // somebody else may lead already: the next start is a standby

struct OperatorProgramSettings {
  std::string listen_host;             // "": every interface
  Duration stop_within = seconds(20);  // of an ordered stop; below terminationGracePeriodSeconds
  Duration look_every = seconds(30);   // at the channel's objects
};

// pitcrew-operator without its flags: the operator with its channel on real sockets, the objects that lead launchers to
// it, metrics and health. Comes up in this order: metrics and health, the channel's Secrets and Service, the channel,
// the operator; an API server that is away only delays it.
//
// Lives on the loop. Ends by stop(), in order (not ready, queue drained, lease released, sockets closed), or at once
// when the lease is lost: exit_code() then has a value, and the loop is stopped.
class OperatorProgram {
 public:
  // The lease has a transport of its own, so that nothing is before it in a line.
  OperatorProgram(net::AsioLoop& loop, kube::Transport& transport, kube::Transport& lease, OperatorConfig config,
                  OperatorPlace place, OperatorProgramSettings settings, Random random, Logger log);
  ~OperatorProgram();
  OperatorProgram(const OperatorProgram&) = delete;

  Status start();
  void stop();
  const std::optional<int>& exit_code() const { return exit_code_; }

  // Why it isn't ready, for people; empty: it is.
  std::string not_ready() const;
  const Operator* running() const { return operator_ ? &*operator_ : nullptr; }
  net::Address metrics_address() const;
  net::Address channel_address() const;

 private:
  CountingTransport::Tell count();
  void open();
  Status open_channel();
  void trust_changed();
  void leadership(bool leading, uint64_t term);
  void finish(int code);

  net::AsioLoop& loop_;
  OperatorConfig config_;
  OperatorPlace place_;
  OperatorProgramSettings settings_;
  Random random_;
  Logger log_;
  OperatorMetrics metrics_;
  CountingTransport transport_;
  CountingTransport lease_transport_;
  std::unique_ptr<ChannelKeeper> keeper_;
  std::unique_ptr<WebSocketChannelServer> channel_;
  std::unique_ptr<Webhook> webhook_;  // before the operator, which calls it
  std::optional<Operator> operator_;
  net::ProgramEndpoints endpoints_;
  bool stopping_ = false;
  Loop::TimerPtr stop_limit_;
  std::optional<int> exit_code_;
};

}  // namespace pitcrew::control
