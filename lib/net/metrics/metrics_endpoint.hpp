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

// The ports of a program that runs in a pod: metrics on one and health on another, which may be the same. It is ready
// where `not_ready` gives no reason.
class ProgramEndpoints {
 public:
  ProgramEndpoints() = default;
  static Result<ProgramEndpoints> listen(AsioLoop& loop, const std::string& host, uint32_t metrics_port,
                                         uint32_t health_port, std::shared_ptr<prometheus::Registry> registry,
                                         std::function<std::string()> not_ready, Logger log);
  Address metrics_address() const { return metrics_->address(); }
  Address health_address() const { return (health_ ? health_ : metrics_)->address(); }

 private:
  std::unique_ptr<MetricsEndpoint> metrics_;
  std::unique_ptr<MetricsEndpoint> health_;  // null: the metrics' answers for it
};

// The text that /metrics answers with (Prometheus text format 0.0.4), for an HTTP server with more on it than metrics.
std::string metrics_text(const prometheus::Registry& registry);

}  // namespace pitcrew::net
