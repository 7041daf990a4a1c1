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
  // Of the launcher itself.
  double output_pauses = 0;
  double output_blocked_seconds = 0;
  double processes_reaped = 0;
  double stalls = 0;
  double messages_refused = 0;
  double channel_attempts_failed = 0;
  double memory_received_bytes = 0;
  double memory_sent_bytes = 0;
  double memory_requests_refused = 0;
};

// Prometheus text format 0.0.4.
std::string metrics_text(const MetricsInput& input);

}  // namespace pitcrew::launcher
