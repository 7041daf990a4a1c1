#pragma once

#include <any>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "lib/net/address.hpp"
#include "lib/net/http_message.hpp"

namespace pitcrew::net {

// Close codes that are used here (RFC 6455, 7.4).
namespace close_code {
inline constexpr uint16_t kNormal = 1000;
inline constexpr uint16_t kGoingAway = 1001;
inline constexpr uint16_t kProtocolError = 1002;
inline constexpr uint16_t kAbnormal = 1006;  // never sent: the connection ended without a close frame
inline constexpr uint16_t kPolicy = 1008;
inline constexpr uint16_t kTooBig = 1009;
inline constexpr uint16_t kTryAgainLater = 1013;
}  // namespace close_code

// Why a session ended.
struct WebSocketClose {
  uint16_t code = close_code::kAbnormal;
  std::string reason;  // the peer's words, or what went wrong here
};

// The request that asks for a session.
struct WebSocketRequest {
  std::string path;  // with the query, as sent
  Headers headers;
  Address peer;
};

// One open WebSocket. Shared by the server or client and whoever keeps the pointer; used on the loop. After on_close
// every call does nothing.
class WebSocketSession {
 public:
  virtual ~WebSocketSession() = default;
  virtual uint64_t id() const = 0;  // unique in the process
  virtual const Address& peer() const = 0;
  // What the server's admission gave it (WebSocketAdmission::accept).
  virtual std::any& context() = 0;
  virtual bool open() const = 0;
  // Queues a text message. When more than the limit waits, the session is cut, on_close says so, and false comes back.
  virtual bool send(std::string text) = 0;
  virtual size_t queued_bytes() const = 0;
  // Sends what is queued, then a close frame (the reason cut to 123 bytes); on_close follows, at the latest after the
  // handshake timeout.
  virtual void close(uint16_t code, std::string_view reason) = 0;
};
using WebSocketSessionPtr = std::shared_ptr<WebSocketSession>;

}  // namespace pitcrew::net
