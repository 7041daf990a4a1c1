#include "cli/job/wait.hpp"

#include "cli/connect/exit_code.hpp"
#include "cli/job/status.hpp"
#include "cli/show/words.hpp"

namespace pitcrew::cli {

int wait_for_job(Cluster& cluster, const std::string& name, const WaitOptions& options, std::ostream& out,
                 std::ostream& err) {
  const Instant end = cluster.now() + options.timeout;
  Instant answered = cluster.now();
  std::string seen;
  while (true) {
    const auto job = cluster.job(name);
    const Instant now = cluster.now();
    const bool absent = !job && job.error().code == Code::kNotFound;
    if (job || absent) answered = now;
    if (!job && !absent && now - answered > options.forgive) {
      err << "pitcrew: " << job.error().message << "\n";
      return exit_code_of(job.error());
    }
    if (job) {
      const std::string phase(api::to_string(job->status.phase));
      if (phase != seen) out << name << ": " << phase << std::endl;
      seen = phase;
      if (phase == options.phase) return kExitDone;
      if (api::terminal(job->status.phase)) {
        const std::string why = waiting_for(*job);
        err << "pitcrew: the job has ended as " << phase << (why.empty() ? "" : ": " + why) << "; " << cluster.pitcrew()
            << " diagnose " << name << "\n";
        return kExitNo;
      }
    }
    if (now >= end) {
      err << "pitcrew: the job " << (absent ? "is not there" : "is " + seen) << " after " << spoken(options.timeout)
          << "; " << cluster.pitcrew() << " diagnose " << name << "\n";
      return kExitTooLate;
    }
    if (!cluster.pause(options.look_every)) return kExitTooLate;
  }
}

}  // namespace pitcrew::cli
