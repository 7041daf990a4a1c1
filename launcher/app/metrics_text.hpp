#pragma once

#include <string>
#include <utility>
#include <vector>

#include "launcher/progress/judge.hpp"

namespace pitcrew::launcher {

// What /metrics shows.
struct MetricsInput {
  EpochId epoch;
  Rank first_rank;
  page::HeaderCopy header;
  std::vector<RankView> ranks;
  std::vector<std::vector<std::pair<std::string, double>>> gauges;  // of each rank
  double tokens_per_second = 0;
  bool connected = false;
  // Name (with labels) and value; counters end in _total.
  std::vector<std::pair<std::string, double>> launcher;
};

// Prometheus text format 0.0.4.
std::string metrics_text(const MetricsInput& input);

}  // namespace pitcrew::launcher
