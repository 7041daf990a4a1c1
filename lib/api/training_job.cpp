#include "lib/api/training_job.hpp"

namespace pitcrew::api {

std::string_view to_string(RuleAction action) {
  switch (action) {
    case RuleAction::kRestart:
      return "Restart";
    case RuleAction::kFail:
      return "Fail";
  }
  return "Restart";
}

std::string_view to_string(Phase phase) {
  switch (phase) {
    case Phase::kPending:
      return "Pending";
    case Phase::kStarting:
      return "Starting";
    case Phase::kRunning:
      return "Running";
    case Phase::kRecovering:
      return "Recovering";
    case Phase::kSuspended:
      return "Suspended";
    case Phase::kSucceeded:
      return "Succeeded";
    case Phase::kFailed:
      return "Failed";
  }
  return "Pending";
}

std::string_view to_string(Cause cause) {
  switch (cause) {
    case Cause::kRankCrash:
      return "RankCrash";
    case Cause::kLauncherDeath:
      return "LauncherDeath";
    case Cause::kHang:
      return "Hang";
    case Cause::kGpuFault:
      return "GpuFault";
    case Cause::kEfaFault:
      return "EfaFault";
    case Cause::kNodeLoss:
      return "NodeLoss";
    case Cause::kPlanned:
      return "Planned";
    case Cause::kProgram:
      return "Program";
    case Cause::kUnknown:
      return "Unknown";
  }
  return "Unknown";
}

std::string_view to_string(Rung rung) {
  switch (rung) {
    case Rung::kInPlace:
      return "InPlace";
    case Rung::kRelaunched:
      return "Relaunched";
    case Rung::kSpareTaken:
      return "SpareTaken";
    case Rung::kRecreated:
      return "Recreated";
    case Rung::kShrunk:
      return "Shrunk";
    case Rung::kReleased:
      return "Released";
    case Rung::kFailed:
      return "Failed";
  }
  return "Failed";
}

const ResourceType& TrainingJob::type() {
  static const ResourceType type{kGroup, kVersion, "TrainingJob", "trainingjobs", true};
  return type;
}

std::string pod_name(const TrainingJob& job, Serial serial) {
  return job.metadata.name + "-" + job.metadata.uid.substr(0, 5) + "-" + std::to_string(serial.value);
}

Result<TrainingJob> TrainingJob::decode(const Json& json) {
  Problems problems;
  TrainingJob job = decode_training_job(json, problems);
  validate(job, problems);
  if (!problems.empty()) {
    const std::string name = job.metadata.name.empty() ? "TrainingJob" : "TrainingJob " + job.metadata.name;
    return Error(Code::kInvalidArgument, name + ": " + join(problems));
  }
  return job;
}

}  // namespace pitcrew::api
