#pragma once

#include <memory>
#include <string>
#include <vector>

#include "lib/base/clock.hpp"
#include "lib/kube/transport/transport.hpp"
#include "operator/app/operator.hpp"

namespace prometheus {
struct MetricFamily;
class Registry;
}  // namespace prometheus

namespace pitcrew::control {

// What /metrics shows of an operator: controller-runtime's names where there is one for it, and each job's gauges
// (pitcrew_job_*, by the leader alone), which are read from the cache when they are asked for: a deleted job's are gone
// with it. The counters are told by the functions below. Lives on the loop.
class OperatorMetrics {
 public:
  OperatorMetrics();
  ~OperatorMetrics();

  // Whose numbers are shown from now on; null: nobody's. Must be unset before the operator goes.
  void watch(const Operator* shown);

  void request(const kube::Request& request, const std::string& code, Duration took);
  void recovered(const api::TrainingJob& job, const api::Recovery& recovery);
  void count(std::string_view name, double amount);

  std::shared_ptr<prometheus::Registry> registry() const;
  // Each metric that there is, with a sample: what docs/metrics.md is made of.
  static std::vector<prometheus::MetricFamily> everything();

 private:
  class Collected;
  std::shared_ptr<Collected> registry_;
};

}  // namespace pitcrew::control
