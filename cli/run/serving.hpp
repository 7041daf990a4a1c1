#pragma once

#include <memory>
#include <string>

#include "lib/base/log.hpp"
#include "lib/local/api/api_server.hpp"
#include "lib/net/asio_loop.hpp"
#include "operator/app/metrics.hpp"

namespace pitcrew::local {
class HttpApi;
}
namespace pitcrew::net {
class MetricsEndpoint;
}

namespace pitcrew::cli {

class RunFolder;

// What `pitcrew run --serve` opens on the loopback interface while it runs: the Kubernetes API, with the pods' logs and
// their launchers' numbers, and the operator's /metrics. DIR/kubeconfig leads to the first, DIR/metrics-address names
// the second, so that `pitcrew --kubeconfig DIR/kubeconfig status JOB` and Prometheus work on a simulated cluster. The
// API asks for a token that only the kubeconfig has. On the loop; goes after the operator and before the API server.
class Serving {
 public:
  static Result<std::unique_ptr<Serving>> open(net::AsioLoop& loop, local::ApiServer& server, const RunFolder& folder,
                                               Logger log);
  ~Serving();
  Serving(const Serving&) = delete;

  control::OperatorMetrics& metrics() { return metrics_; }
  // The same transport, its requests counted.
  kube::Transport& counted(kube::Transport& transport);

 private:
  explicit Serving(net::AsioLoop& loop);

  net::AsioLoop& loop_;
  control::OperatorMetrics metrics_;
  std::unique_ptr<kube::Transport> counted_;
  std::unique_ptr<local::HttpApi> api_;
  std::unique_ptr<net::MetricsEndpoint> endpoint_;
};

}  // namespace pitcrew::cli
