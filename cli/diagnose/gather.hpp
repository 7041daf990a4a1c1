#pragma once

#include <string>

#include "cli/connect/cluster.hpp"
#include "cli/diagnose/facts.hpp"

namespace pitcrew::cli {

struct GatherOptions {
  bool live = true;          // ask the launchers' /metrics through the API server
  size_t max_live = 64;      // of so many launchers
  int64_t log_lines = 200;   // of the container that failed last
  size_t max_init_logs = 4;  // logs of init containers that others wait for
};

// Asks the cluster for everything that `diagnose` judges by. An error only where there is no such job or no API server;
// what may not be read is listed in `unseen`.
Result<Facts> gather(Cluster& cluster, const std::string& job, const GatherOptions& options = {});

}  // namespace pitcrew::cli
