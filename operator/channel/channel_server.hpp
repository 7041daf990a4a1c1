#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "lib/api/channel.hpp"

namespace pitcrew::control {

// Why the operator ends a session: WebSocket close codes of the private range, so that a launcher knows what to do
// next.
enum class CloseCode : uint16_t {
  kGoingAway = 1001,  // shutting down: connect again
  kLost = 1006,       // never sent: an end without a goodbye, or a ping without an answer
  kTooBig = 1009,
  kNotLeader = 4000,     // connect again, to whoever leads by then
  kUnauthorized = 4001,  // the token was refused: re-read it, connect again with back-off
  kProtocol = 4002,      // a version or a message that this operator does not understand
  kReplaced = 4003,      // a newer connection of the same pod
  kTryAgain = 4004,      // the token could not be checked now
};

// One launcher's connection, the operator's end. Lives on the loop; shared by the server that made it and the hub that
// uses it. After close(), or after the handler was told `closed`, send() does nothing.
class ChannelSession {
 public:
  virtual ~ChannelSession() = default;

  // The bearer token that the launcher presented when it opened the connection (Authorization header of the upgrade).
  virtual const std::string& token() const = 0;
  // "10.0.3.7:51234", for logs.
  virtual const std::string& peer() const = 0;
  virtual void send(std::string message) = 0;
  // Ends the session. The handler hears `closed` later, never inside this call.
  virtual void close(CloseCode code, std::string reason) = 0;
};
using ChannelSessionPtr = std::shared_ptr<ChannelSession>;

// What `closed` says first where a session ended because nothing came from the other end any more.
inline constexpr std::string_view kFellSilent = "fell silent: ";

// Who hears what launchers say. Called on the loop, never from inside start(), send() or close().
class ChannelHandler {
 public:
  virtual ~ChannelHandler() = default;
  virtual void opened(const ChannelSessionPtr& session) = 0;
  virtual void received(const ChannelSessionPtr& session, std::string_view message) = 0;
  // Exactly once for each `opened`, whichever end closed it.
  virtual void closed(const ChannelSessionPtr& session, const std::string& reason) = 0;
  // config() has another answer now.
  virtual void config_changed() = 0;
};

// Where launchers connect to. One per operator; started while the operator is a standby too, since it is the hub that
// sends launchers away with kNotLeader. Implementations: WebSocketChannelServer, and MemoryChannelServer for tests and
// simulation.
class ChannelServer {
 public:
  virtual ~ChannelServer() = default;
  // `handler` outlives the server, or stop() is called before it goes.
  virtual void start(ChannelHandler& handler) = 0;
  // Ends every session without telling the handler, and accepts none.
  virtual void stop() = 0;
  // What launchers are told to connect to: becomes channel.json of every pod.
  virtual api::channel::Config config() const = 0;
};

}  // namespace pitcrew::control
