#pragma once

#include <vector>

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

namespace pitcrew::net {

// What every process tells of itself, under the names that Prometheus' client libraries share: CPU seconds, resident
// and virtual memory, open and allowed descriptors, threads, start time; and what it holds of glibc's allocator and
// what that keeps for later, by which a leak is told from a pool. Read from /proc/self at each collection; a value that
// can't be read is left out. Thread-safe.
class ProcessCollector final : public prometheus::Collectable {
 public:
  std::vector<prometheus::MetricFamily> Collect() const override;
};

}  // namespace pitcrew::net
