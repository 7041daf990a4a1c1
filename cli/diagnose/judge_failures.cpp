#include <algorithm>
#include <map>

#include "cli/diagnose/rules.hpp"
#include "cli/show/words.hpp"

namespace pitcrew::cli {
namespace {

constexpr char kLog[] = "{log}";

// What programs say before they end. Looked for in the evidence and the last lines, the first match counts; what is
// special stands before what is general.
constexpr Rule kTextRules[] = {
    {"could not start '", "CommandMissing", 95, "The image lacks the program that the container's command names.",
     "mend command in spec.template, or the image", "{kubectl} get trainingjob {job} -o jsonpath='{.spec.template}'"},
    {"out of memory: the kernel killed", "OutOfMemory", 92,
     "The training container ran out of its memory limit (host memory, not the GPU's).",
     "raise resources.limits.memory in spec.template, or use fewer data workers; PITCREW_MEMORY's size is part of it",
     "{pitcrew} timeline {job}"},
    {"CUDA out of memory", "GpuOutOfMemory", 95, "The program needs more GPU memory than there is.",
     "a smaller micro-batch, activation checkpointing, or more sharding", kLog},
    {"out of memory trying to allocate", "GpuOutOfMemory", 95, "The program needs more GPU memory than there is.",
     "a smaller micro-batch, activation checkpointing, or more sharding", kLog},
    {"ModuleNotFoundError", "ModuleMissing", 95, "A Python module is missing in the image or environment.",
     "install it in the image, or mend PYTHONPATH", kLog},
    {"No module named", "ModuleMissing", 95, "A Python module is missing in the image or environment.",
     "install it in the image, or mend PYTHONPATH", kLog},
    {"SyntaxError", "SyntaxError", 95, "The program has a syntax error.", "mend it; no restart helps", kLog},
    {"No space left on device", "DiskFull", 95, "A disk or file system is full.",
     "free some, lower checkpoint.keep, or enlarge it", kLog},
    {"Disk quota exceeded", "DiskFull", 95, "A disk or file system is full.",
     "free some, lower checkpoint.keep, or have the quota raised", kLog},
    {"Read-only file system", "ReadOnly", 94, "The program writes where it may only read.",
     "checkpoint.path must lie on a volume that is mounted writable", kLog},
    {"Permission denied", "PermissionDenied", 93, "The program may not read or write a file.",
     "compare the volume's owner with runAsUser and fsGroup in spec.template", kLog},
    {"GLIBC_", "WrongLibc", 93, "The image's C library is older than the program's.",
     "build the program in the image it runs in", kLog},
    {"CUDA driver version is insufficient", "DriverTooOld", 93,
     "The node's NVIDIA driver is older than the image's CUDA needs.",
     "nodes with a newer driver, or an image with an older CUDA", kLog},
    {"no CUDA-capable device", "NoGpu", 93, "The program sees no GPU.",
     "does the template ask for nvidia.com/gpu, and does the device plugin run on the node?", kLog},
    {"an illegal memory access", "IllegalAccess", 88, "A kernel accessed memory that it may not: a bug, or a bad GPU.",
     "if it stays with one node it is the node; if it moves with the job it is the program", kLog},
    {"Bus error", "SharedMemory", 92, "The program ran out of shared memory (/dev/shm).",
     "mount an emptyDir {medium: Memory} at /dev/shm, or use fewer data workers", kLog},
    {"unable to open shared memory", "SharedMemory", 92, "The program ran out of shared memory (/dev/shm).",
     "mount an emptyDir {medium: Memory} at /dev/shm, or use fewer data workers", kLog},
    {"Address already in use", "PortInUse", 85, "A port is taken: the program listens on one that is not the epoch's.",
     "use MASTER_PORT from the environment; it is new with every epoch", kLog},
    {"NCCL WARN", "Nccl", 70, "NCCL reports a problem of the network between ranks.",
     "NCCL_DEBUG=INFO says which peer and device; compare libfabric, aws-ofi-nccl and the driver's versions", kLog},
    {"unhandled system error", "Nccl", 70, "NCCL reports a problem of the network between ranks.",
     "NCCL_DEBUG=INFO says which peer and device; compare libfabric, aws-ofi-nccl and the driver's versions", kLog},
    {"is not finite", "NotANumber", 92, "The loss or a gradient is not a number.",
     "a lower learning rate, gradient clipping, or look at the samples that the message names", kLog},
    {"is being written by job", "CheckpointClaimed", 94, "Another living job writes into the checkpoint folder.",
     "give this job another checkpoint.path, or end the other: the folder is taken over 30 s after it stops",
     "{kubectl} get trainingjobs -A"},
    {"loss is nan", "NotANumber", 90, "The loss is not a number.",
     "a lower learning rate, gradient clipping, or look at the batch that the message names", kLog},
    {"FileNotFoundError", "FileMissing", 92, "The program misses a file.",
     "mend the path, or mount the volume that has it", kLog},
    {"No such file or directory", "FileMissing", 92, "The program misses a file.",
     "mend the path, or mount the volume that has it", kLog},
    {"Traceback (most recent call last)", "PythonException", 75, "The program ends with a Python exception.",
     "the traceback is in the log", kLog},
};

// The matter of the lines, and which of them says it.
const Rule* said(const std::vector<std::string>& lines, std::string& line) {
  for (const Rule& rule : kTextRules) {
    for (auto text = lines.rbegin(); text != lines.rend(); ++text) {
      if (!contains(*text, rule.text)) continue;
      line = *text;
      return &rule;
    }
  }
  return nullptr;
}

std::string of_recovery(const Facts& facts, const api::Recovery& recovery) {
  std::string text(api::to_string(recovery.cause));
  if (recovery.rank) text += " of rank " + std::to_string(recovery.rank->value);
  if (!recovery.node.empty()) text += " on " + recovery.node;
  if (recovery.detected) text += ", " + ago(facts.now, *recovery.detected);
  return text + ": " + recovery.evidence;
}

Finding ended(const Facts& facts, const Condition& failed) {
  const std::string& name = facts.job.metadata.name;
  Finding finding{failed.reason, 90, "The job has failed: " + failed.reason + ".", {failed.message}, "", ""};
  finding.command = filled(facts, "{log}");
  if (failed.reason == "RestartLimitReached") {
    finding.title = "The job failed because it was restarted too often (recovery.limit).";
    std::map<std::string, int> causes;
    for (const api::Recovery& recovery : facts.job.status.recoveries)
      ++causes[std::string(api::to_string(recovery.cause))];
    std::string counted;
    for (const auto& [cause, count] : causes)
      counted += (counted.empty() ? "" : ", ") + std::to_string(count) + " × " + cause;
    if (!counted.empty()) finding.evidence.push_back("the last ones: " + counted);
    finding.remedy = "mend what the failures have in common; applied again, the job resumes from its newest checkpoint";
    finding.command = pitcrew(facts, "timeline " + name);
  } else if (failed.reason == "ProgramAtFault") {
    finding.title = "The training program itself fails; other hardware does not help.";
    finding.remedy = "mend the program; applied again, the job resumes from its newest checkpoint";
    for (const api::Recovery& recovery : facts.job.status.recoveries) {
      if (contains(recovery.evidence, "exit code 64") || contains(recovery.evidence, "exited with 64")) {
        finding.title = "The training program says that its configuration is wrong (exit code 64).";
        finding.remedy = "mend what the line above names and apply the job again";
      } else if (contains(recovery.evidence, "exit code 65") || contains(recovery.evidence, "exited with 65")) {
        finding.title = "The training program says that its data is wrong (exit code 65).";
        finding.remedy =
            "mend or leave out what the line above names; applied again, the job resumes from its newest checkpoint";
      }
      break;
    }
  }
  return finding;
}

// The newest recoveries of a cause, a line each.
std::vector<std::string> newest_of(const Facts& facts, api::Cause cause, size_t at_most) {
  std::vector<std::string> lines;
  for (const api::Recovery& recovery : facts.job.status.recoveries) {
    if (recovery.cause == cause && lines.size() < at_most) lines.push_back(of_recovery(facts, recovery));
  }
  return lines;
}

// The same place each time, or the same rank, is told by the newest ones side by side.
Finding hangs_often(const Facts& facts, int count) {
  return {"HangsOften",
          68,
          "The job hangs again and again, and is restarted each time: " + std::to_string(count) +
              " × Hang within the last hour.",
          newest_of(facts, api::Cause::kHang, 3),
          "compare the ranks' stacks: all in one place, it is the program or its network; one in another place, the "
          "others waited for that one; always the same node, have it checked",
          pitcrew(facts, "stacks " + facts.job.metadata.name + " --last-hang")};
}

// Recoveries of the last hour that are alike.
void again_and_again(const Facts& facts, Findings& findings) {
  std::map<api::Cause, int> causes;
  std::map<std::string, int> nodes;
  for (const api::FailureRecord& failure : facts.job.status.failures) {
    if (failure.cause == api::Cause::kPlanned || facts.now - failure.time > hours(1)) continue;
    ++causes[failure.cause];
    if (!failure.node.empty()) ++nodes[failure.node];
  }
  // Where failures are everywhere, no node is to blame.
  int all = 0;
  for (const auto& [node, count] : nodes) all += count;
  for (const auto& [node, count] : nodes) {
    if (count < 3 || (nodes.size() > 1 && count * 2 <= all)) continue;
    findings.push_back({"NodeFailsOften",
                        60,
                        "One node fails again and again: " + node + ".",
                        {std::to_string(count) + " failures there within the last hour"},
                        "it is avoided after recovery.avoidNodes.afterFailures; have it checked",
                        pitcrew(facts, "check node " + node)});
  }
  for (const auto& [cause, count] : causes) {
    if (count < 3) continue;
    if (cause == api::Cause::kHang) {
      findings.push_back(hangs_often(facts, count));
      continue;
    }
    findings.push_back({"FailsOften", 68,
                        "The job is recovered again and again: " + std::to_string(count) + " × " +
                            std::string(api::to_string(cause)) + " within the last hour.",
                        newest_of(facts, cause, 1),
                        cause == api::Cause::kRankCrash ? "look at what the rank said before it ended"
                                                        : "see what they have in common",
                        pitcrew(facts, "timeline " + facts.job.metadata.name)});
  }
}

}  // namespace

const Rule* cause_of(const std::string& words) { return matching(kTextRules, words); }

void judge_failures(const Facts& facts, Findings& findings) {
  const auto& status = facts.job.status;
  if (status.phase == api::Phase::kSucceeded) return;
  const Condition* failed = condition(facts, "Failed");
  const bool over = failed != nullptr && failed->status;
  const bool by_deadline = over && (failed->reason == "DeadlineExceeded" || failed->reason == "StartDeadlineExceeded");
  if (over && !by_deadline) findings.push_back(ended(facts, *failed));

  const bool well = status.phase == api::Phase::kRunning;
  // What it ended with counts more than what stands somewhere among its last lines.
  std::vector<std::string> ending;
  if (!status.recoveries.empty()) ending.push_back(status.recoveries.front().evidence);
  if (over) ending.push_back(failed->message);
  std::string line;
  const Rule* rule = by_deadline ? nullptr : said(ending, line);
  const bool by_ending = rule != nullptr;
  if (rule == nullptr && !by_deadline) rule = said(facts.last_lines, line);
  if (rule != nullptr) {
    Finding finding = finding_of(facts, *rule, {line});
    if (!by_ending) finding.weight -= 3;
    if (well) finding.weight /= 3;
    if (!by_ending) finding.evidence.push_back("in the log of " + facts.last_lines_of);
    findings.push_back(std::move(finding));
  }
  if (!over) again_and_again(facts, findings);
  if (status.phase == api::Phase::kRecovering && !status.recoveries.empty()) {
    const api::Recovery& recovery = status.recoveries.front();
    Finding finding{"Recovering",
                    65,
                    "The job is recovering (" + std::string(api::to_string(recovery.rung)) + ").",
                    {of_recovery(facts, recovery)},
                    "nothing, unless it takes longer than the timeline's other recoveries",
                    pitcrew(facts, "timeline " + facts.job.metadata.name)};
    if (recovery.cause == api::Cause::kNodeLoss)
      finding.title = "A node was lost; the job is recovering (" + std::string(api::to_string(recovery.rung)) + ").";
    if (recovery.cause == api::Cause::kGpuFault)
      finding.title = "A GPU failed; the job is recovering (" + std::string(api::to_string(recovery.rung)) + ").";
    if (recovery.cause == api::Cause::kHang)
      finding.title = "The job hung; it is recovering (" + std::string(api::to_string(recovery.rung)) + ").";
    if (recovery.detected && facts.now - *recovery.detected > minutes(2) && !recovery.ready)
      finding.evidence.push_back("for " + spoken(facts.now - *recovery.detected) +
                                 " already: some of the gang is missing");
    findings.push_back(std::move(finding));
  }
}

}  // namespace pitcrew::cli
