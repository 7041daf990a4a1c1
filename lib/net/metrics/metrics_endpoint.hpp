#pragma once

#include <functional>
#include <memory>

#include "lib/net/http_server.hpp"

namespace prometheus {
class Registry;
}

namespace pitcrew::net {

struct HealthChecks {
  std::function<Status()> healthy = {};  // unset: always; an error is answered with 503 and its message
  std::function<Status()> ready = {};
};

// Serves a registry on /metrics and the answers of two functions on /healthz and /readyz: what every program but the
// launcher listens with. On the loop; destroying it stops listening.
class MetricsEndpoint {
 public:
  // Adds the process's own numbers (process_cpu_seconds_total and the rest) to what the registry collects.
  static Result<std::unique_ptr<MetricsEndpoint>> listen(AsioLoop& loop, HttpServerSettings settings,
                                                         std::shared_ptr<prometheus::Registry> registry,
                                                         HealthChecks checks = {}, Logger log = {});
  Address address() const { return server_->address(); }

 private:
  explicit MetricsEndpoint(std::unique_ptr<HttpServer> server) : server_(std::move(server)) {}
  std::unique_ptr<HttpServer> server_;
};

// The text that /metrics answers with (Prometheus text format 0.0.4), for an HTTP server with more on it than metrics.
std::string metrics_text(const prometheus::Registry& registry);

}  // namespace pitcrew::net
