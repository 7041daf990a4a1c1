#pragma once

#include <functional>
#include <memory>
#include <string>

#include "lib/net/http_client.hpp"
#include "lib/net/tls.hpp"

namespace pitcrew::net {

struct HttpPoolSettings {
  std::string host;  // a DNS name or a numeric address
  uint16_t port = 443;
  // Asked for every new connection, so that rotated roots and certificates are taken up; empty: no TLS.
  std::function<Result<TlsClientPtr>()> tls;
  Duration connect_timeout = seconds(10);  // name, TCP and TLS together
  Duration idle_timeout = seconds(50);     // a kept connection that nobody needs is closed after it
  size_t max_idle = 16;                    // connections kept
  size_t max_busy = 64;                    // exchanges at once, long-lived ones apart; more wait in line
  size_t max_head_bytes = 64 * 1024;
};

struct HttpPoolCall {
  HttpRequest request;
  // May be sent once more where a kept connection turns out dead before the answer begins. For reads; a write whose
  // answer is lost may have taken effect, and is never repeated here.
  bool repeatable = false;
  bool long_lived = false;         // a stream
  Duration timeout = seconds(30);  // waiting in line included, to the answer's end; of a long-lived one, to its head
  Duration idle_limit{0};          // of a long-lived one: between two pieces; 0: none
};

// All are optional, and may destroy the exchange and the pool.
struct HttpPoolHandler {
  std::function<void(int status, const Headers& headers)> on_head;
  std::function<Status(std::string_view piece)> on_piece;  // of the body; an error ends the exchange with it
  // Once, the last: success at the body's end, or why it can't be had.
  std::function<void(Status status)> on_end;
};

struct HttpPoolMetrics {
  uint64_t opened = 0;    // connections
  uint64_t reused = 0;    // exchanges on a kept connection
  uint64_t repeated = 0;  // exchanges sent again on a new connection
  uint64_t waited = 0;    // in line, for max_busy
};

// HTTP/1.1 to one server over connections that are kept: bodies come in pieces, redirects are never followed, nothing
// is compressed. A connection that breaks while it is kept is noticed at once. Lives on an AsioLoop; destroying it
// closes everything and calls nothing.
class HttpPool {
 public:
  HttpPool(AsioLoop& loop, HttpPoolSettings settings);
  ~HttpPool();
  HttpPool(const HttpPool&) = delete;
  HttpPool& operator=(const HttpPool&) = delete;

  [[nodiscard]] HttpExchangePtr send(HttpPoolCall call, HttpPoolHandler handler);
  // New connections for all that comes: kept ones are closed, busy ones when their exchange has ended.
  void renew();

  const HttpPoolMetrics& metrics() const;
  size_t connections() const;  // open ones, kept or busy

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace pitcrew::net
