#pragma once

#include <memory>
#include <string>

#include "lib/base/log.hpp"
#include "lib/kube/config/cluster_config.hpp"
#include "lib/kube/transport/transport.hpp"
#include "lib/net/asio_loop.hpp"

namespace pitcrew::kube {

struct HttpTransportSettings {
  std::string user_agent;                      // empty: pitcrew/<version>
  size_t max_object_bytes = 16 * 1024 * 1024;  // of one object, list item or event; lists as a whole are unbounded
  Duration connect_timeout = seconds(10);      // name, TCP and TLS together
  Duration watch_idle_limit = minutes(5);      // of silence, for those who have no limit of their own
  Duration watch_grace = seconds(30);          // beyond the timeoutSeconds that the server was asked for
  size_t max_busy = 64;                        // calls at once; more wait in line
};

struct HttpTransportMetrics {
  uint64_t connections = 0;   // opened
  uint64_t reused = 0;        // calls on a kept connection
  uint64_t repeated = 0;      // reads sent again because a kept connection was dead
  uint64_t unauthorized = 0;  // answers 401
  uint64_t throttled = 0;     // answers 429
};

// The way to a real API server: HTTP/1.1 over kept connections, each watch on one of its own. Lists are decoded object
// by object as their bytes come, with the loop's other tasks in between. Redirects are refused, nothing is compressed,
// a write is sent once. A 401 makes it read the credentials anew, and the request is sent once more if they differ.
//
// Lives on an AsioLoop; destroying it drops every callback. Give the lease a transport of its own.
class HttpTransport final : public Transport {
 public:
  // Checks the configuration; nothing is sent yet.
  static Result<std::unique_ptr<HttpTransport>> create(net::AsioLoop& loop, const ClusterConfig& config,
                                                       HttpTransportSettings settings = {}, Logger log = {});
  ~HttpTransport() override;

  [[nodiscard]] CallPtr send(Request request, Answer answer) override;
  [[nodiscard]] CallPtr watch(Request request, WatchSink sink) override;

  HttpTransportMetrics metrics() const;

 private:
  class Impl;
  explicit HttpTransport(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<Impl> impl_;
};

// The transport of a program: an HttpTransport.
Result<std::unique_ptr<Transport>> connect(net::AsioLoop& loop, const ClusterConfig& config,
                                           HttpTransportSettings settings = {}, Logger log = {});

}  // namespace pitcrew::kube
