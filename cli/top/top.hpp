#pragma once

#include <ostream>
#include <string>

#include "cli/connect/cluster.hpp"
#include "cli/diagnose/facts.hpp"
#include "cli/show/terminal.hpp"

namespace pitcrew::cli {

struct TopOptions {
  Duration every = seconds(2);
  bool once = false;
  bool all_namespaces = false;
  size_t most_ranks = 64;  // the slowest first
};

// The ranks as a table: those that are behind, then those that wait longest for data.
std::string print_ranks(const Facts& facts, const Terminal& terminal, size_t most);

// `pitcrew top [JOB]`, until Ctrl-C or the job's end; once where the output is no terminal.
int show_top(Cluster& cluster, const std::string& job, const TopOptions& options, const Terminal& terminal,
             std::ostream& out, std::ostream& err);

}  // namespace pitcrew::cli
