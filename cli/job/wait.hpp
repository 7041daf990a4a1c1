#pragma once

#include <ostream>
#include <string>

#include "cli/connect/cluster.hpp"

namespace pitcrew::cli {

struct WaitOptions {
  std::string phase = "Succeeded";   // a phase of TrainingJob.status
  Duration timeout = minutes(10);    // from the call on
  Duration look_every = seconds(1);  // at the job
  Duration forgive = seconds(30);    // how long the API server may be away
};

// `pitcrew wait JOB`: until the job is in the phase, with a line for every change of phase. A job that isn't there yet
// is waited for too. kExitDone; kExitNo where a terminal phase makes it impossible; kExitTooLate.
int wait_for_job(Cluster& cluster, const std::string& job, const WaitOptions& options, std::ostream& out,
                 std::ostream& err);

}  // namespace pitcrew::cli
