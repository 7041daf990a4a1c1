#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "cli/connect/cluster.hpp"
#include "cli/diagnose/facts.hpp"
#include "cli/show/document.hpp"
#include "cli/show/terminal.hpp"

namespace pitcrew::cli {

// One thing that happened to a job.
struct Moment {
  Instant time;
  std::string what;  // created, recovery, event, checkpoint, request, condition
  std::string text;
  std::vector<std::string> details;
  bool bad = false;
};

// Everything that the job and its events still know, oldest first. Pure.
std::vector<Moment> timeline_of(const Facts& facts);
// Where a recovery's time went: "5.1s unnoticed · 0.2s deciding · …".
std::string phases_of(const api::Recovery& recovery);

std::string print_timeline(const Facts& facts, const Terminal& terminal);
int show_timeline(Cluster& cluster, const std::string& job, Format format, const Terminal& terminal, std::ostream& out,
                  std::ostream& err);

}  // namespace pitcrew::cli
