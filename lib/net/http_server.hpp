#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "lib/base/log.hpp"
#include "lib/net/asio_loop.hpp"
#include "lib/net/http_message.hpp"
#include "lib/net/tls.hpp"

namespace pitcrew::net {

struct HttpServerSettings {
  Address address;                            // port 0: any free one
  std::optional<TlsServerIdentity> identity;  // set: TLS
  size_t max_connections = 256;               // more are closed at once
  size_t max_head_bytes = 16 * 1024;
  size_t max_body_bytes = 4 * 1024 * 1024;          // larger: 413
  size_t max_stream_queue_bytes = 4 * 1024 * 1024;  // of one StreamingResponder; more: the stream is cut
  Duration request_timeout = seconds(10);           // TLS handshake, and each request's head and body
  Duration idle_timeout = seconds(60);              // between requests of a connection
  Duration write_timeout = seconds(30);             // for the peer to take a response or the next piece of a stream

  Status validate() const;
};

// The body of a response that is sent piece by piece (chunked), for watches. Used on the loop. Dropping it ends the
// connection without the last chunk, so that the client knows that the body is not whole.
class StreamingResponder {
 public:
  virtual ~StreamingResponder() = default;
  // Queues a piece; false once the stream is closed (the client went away, or was too slow: max_stream_queue_bytes).
  virtual bool write(std::string_view piece) = 0;
  // The last chunk; the connection can take another request after it.
  virtual void finish() = 0;
  virtual bool open() const = 0;
  virtual size_t queued_bytes() const = 0;
  // Called once when the client goes away, is too slow, or the server ends; not after finish() or destruction.
  virtual void on_closed(std::function<void()> function) = 0;
  // Called each time the queue has become empty: what a producer with back-pressure waits for.
  virtual void on_drained(std::function<void()> function) = 0;
};
using StreamingResponderPtr = std::unique_ptr<StreamingResponder>;

// The answer to one request, given now or later, on the loop, by exactly one of the two calls. Dropped without an
// answer: 500. If the client has gone meanwhile, answering does nothing.
class HttpResponder {
 public:
  virtual ~HttpResponder() = default;
  virtual void respond(HttpResponse response) = 0;
  // Sends the head now (response.body becomes the first piece if it isn't empty).
  virtual StreamingResponderPtr stream(HttpResponse head) = 0;
  // Whether the client still waits.
  virtual bool open() const = 0;
};
using HttpResponderPtr = std::unique_ptr<HttpResponder>;
using HttpHandler = std::function<void(HttpRequest request, HttpResponderPtr responder)>;

// An HTTP/1.1 server on the loop: keep-alive, one request of a connection at a time. Lives on the loop's thread;
// destroying it closes every connection, and the handler is not called again.
class HttpServer {
 public:
  static Result<std::unique_ptr<HttpServer>> listen(AsioLoop& loop, HttpServerSettings settings, HttpHandler handler,
                                                    Logger log = {});
  virtual ~HttpServer() = default;
  virtual Address address() const = 0;  // with the port that was given
  virtual size_t connections() const = 0;
  virtual uint64_t refused_connections() const = 0;  // by max_connections
  // Shown to connections from now on; on an error the old one stays.
  virtual Status set_identity(const TlsServerIdentity& identity) = 0;
};

}  // namespace pitcrew::net
