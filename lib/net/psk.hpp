#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lib/base/log.hpp"
#include "lib/net/address.hpp"
#include "lib/net/asio_loop.hpp"

namespace pitcrew::net {

// A key that both ends hold already: an epoch's, between launchers.
struct PskKey {
  std::string identity;  // sent in clear; at most 128 bytes
  std::string key;       // 32 bytes
};

struct PskSettings {
  size_t max_message_bytes = 64 * 1024;     // a larger frame ends the connection
  size_t max_queue_bytes = 256 * 1024;      // of messages waiting to be sent; more: send() fails
  Duration handshake_timeout = seconds(5);  // TCP and TLS
  // For the peer to send or take the next bytes while a read or a write is under way. 0: none.
  Duration io_timeout = seconds(10);

  Status validate() const;
};

// A stream between two launchers: TLS 1.3 with an external pre-shared key (no certificates). Frames (4-byte big-endian
// length, then the bytes) and raw bodies share one stream in the order of the calls; both ends must agree on what comes
// next.
//
// Pulled, never pushed: nothing is read before it is asked for, so that a slow reader stops its writer and memory stays
// bounded. At most one read may be under way at a time. On the loop. After the first error the connection is closed and
// every further call's function gets that error. Functions are never called inside the call that hands them over.
// Destroying the connection cuts it; functions not yet called are dropped.
class PskConnection {
 public:
  using Done = std::function<void(Status status)>;
  using Ptr = std::unique_ptr<PskConnection>;

  // on_connected once: ok, or why not (a peer with another key: kUnauthenticated). Reads and sends may be queued
  // before.
  static Ptr connect(AsioLoop& loop, Address address, PskKey key, PskSettings settings, Done on_connected);

  virtual ~PskConnection() = default;
  virtual const Address& peer() const = 0;
  virtual const std::string& identity() const = 0;  // of the key in use
  virtual bool open() const = 0;

  // A frame. `done`, if given, is called when it has been handed to the kernel; kResourceExhausted when the queue is
  // full or the frame is above max_message_bytes (the connection stays open).
  virtual void send(std::string message, Done done = {}) = 0;
  // A raw body. The bytes must stay until `done`; send the next piece from there, for back-pressure.
  virtual void send_bytes(std::span<const std::byte> bytes, Done done) = 0;
  // The next frame. A peer that closed in order between two frames: kUnavailable with the message "closed by the peer".
  virtual void read(std::function<void(Result<std::string> message)> done) = 0;
  // Exactly bytes.size() raw bytes; the place must stay until `done`.
  virtual void read_bytes(std::span<std::byte> bytes, Done done) = 0;
  // The same without io_timeout for its first byte: for a server that waits for the next request. The next frame,
  // whenever.
  virtual void read_idle(std::function<void(Result<std::string> message)> done) = 0;

  // Sends what is queued, then closes in order.
  virtual void close() = 0;
};

// Accepts PskConnections whose peer proves that it holds one of the keys. On the loop; destroying it stops listening
// and ends handshakes under way; connections handed over are the handler's.
class PskServer {
 public:
  struct Settings {
    Address address;               // port 0: any free one
    size_t max_connections = 256;  // more are closed at once
    PskSettings connection = {};
    Status validate() const;
  };
  using Handler = std::function<void(PskConnection::Ptr connection)>;

  static Result<std::unique_ptr<PskServer>> listen(AsioLoop& loop, Settings settings, std::vector<PskKey> keys,
                                                   Handler handler, Logger log = {});
  virtual ~PskServer() = default;
  virtual Address address() const = 0;
  // Valid for handshakes from now on; connections that stand are not touched.
  virtual Status set_keys(std::vector<PskKey> keys) = 0;
  virtual uint64_t refused_handshakes() const = 0;
};

}  // namespace pitcrew::net
