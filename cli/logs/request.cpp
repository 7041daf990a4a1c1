#include "cli/connect/exit_code.hpp"
#include "cli/logs/logs.hpp"
#include "lib/net/crypto.hpp"

namespace pitcrew::cli {
namespace {

constexpr Duration kLookEvery = milliseconds(500);

}  // namespace

Result<api::RequestStatus> ask_operator(Cluster& cluster, const std::string& job, const std::string& verb,
                                        Duration patience) {
  PITCREW_ASSIGN(const api::TrainingJob before, cluster.job(job));
  if (before.status.phase != api::Phase::kRunning) {
    return Error(Code::kPreconditionFailed,
                 "the job is " + std::string(api::to_string(before.status.phase)) +
                     ", not Running: its ranks can't be asked; see why: " + cluster.pitcrew() + " diagnose " + job);
  }
  const std::string id = "cli-" + net::hex(net::random_bytes(6));
  const Json patch = {{"metadata", {{"annotations", {{api::annotation::kRequest + verb, id}}}}}};
  PITCREW_ASSIGN(const Json patched, cluster.merge(api::TrainingJob::type(), before.metadata.key(), patch));
  (void)patched;
  const Instant until = cluster.now() + patience;
  while (cluster.now() < until) {
    if (!cluster.pause(kLookEvery)) return Error(Code::kCancelled, "interrupted; the request goes on by itself");
    PITCREW_ASSIGN(const api::TrainingJob now, cluster.job(job));
    for (const api::RequestStatus& request : now.status.requests) {
      if (request.id == id && request.state != "Running") return request;
    }
  }
  return Error(Code::kDeadlineExceeded, "no answer to the request '" + verb + "' within " + to_string(patience) +
                                            "; is an operator there, and are the launchers connected? See: " +
                                            cluster.pitcrew() + " diagnose " + job);
}

}  // namespace pitcrew::cli
