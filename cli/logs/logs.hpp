#pragma once

#include <ostream>
#include <string>

#include "cli/connect/cluster.hpp"
#include "cli/show/terminal.hpp"

namespace pitcrew::cli {

struct LogOptions {
  std::optional<uint32_t> rank;  // of one rank alone
  std::string pod;               // of one pod alone
  bool launcher = false;         // of the launchers alone
  bool all = false;              // of ranks and launchers
  bool follow = false;
  bool previous = false;  // of the containers before these
  bool timestamps = false;
  int64_t tail = 200;  // lines of each pod; -1: all
};

// `pitcrew logs JOB`: all ranks merged in the order of time, or one; launchers where the options ask for them. Where
// only launchers have said something, `err` says so.
int show_logs(Cluster& cluster, const std::string& job, const LogOptions& options, const Terminal& terminal,
              std::ostream& out, std::ostream& err);

// `pitcrew stacks JOB --last-hang`: what launchers wrote when their ranks hung last, of the logs that are still there.
int show_last_hang(Cluster& cluster, const std::string& job, const Terminal& terminal, std::ostream& out,
                   std::ostream& err);

// `pitcrew stacks JOB`: asks all launchers for the stacks of their ranks, waits until they have answered, and prints
// them.
int show_stacks(Cluster& cluster, const std::string& job, Duration patience, const Terminal& terminal,
                std::ostream& out, std::ostream& err);

// Asks the operator for something by the job's annotation and waits for its answer in status.requests.
Result<api::RequestStatus> ask_operator(Cluster& cluster, const std::string& job, const std::string& verb,
                                        Duration patience);

}  // namespace pitcrew::cli
