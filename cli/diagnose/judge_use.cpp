#include <algorithm>
#include <cmath>

#include "cli/diagnose/judge.hpp"
#include "cli/show/words.hpp"

// How well the job uses what it has: GPU memory, tensor cores, EFA, and what waits within a step.

namespace pitcrew::cli {
namespace {

constexpr double kWaits = 0.05;            // of a step: less is nobody's concern
constexpr double kTight = 0.03;            // of GPU memory free: the next longer batch may not fit
constexpr double kIdle = 0.5;              // of GPU memory free on all GPUs
constexpr double kTensorIdle = 0.1;        // of the time; a dense model in BF16 reaches 0.4 and more
constexpr double kEfaUnused = 1e6;         // bytes that all of a job's nodes have sent: none but greetings
constexpr double kEfaAgain = 0.01;         // of all bytes sent
constexpr Duration kSettled = minutes(5);  // a job that trains for less has not shown yet what it uses

std::optional<double> worst_gauge(const Facts& facts, const std::string& name) {
  std::optional<double> worst;
  for (const RankFact& rank : facts.ranks) {
    const auto found = rank.gauges.find(name);
    if (found != rank.gauges.end() && std::isfinite(found->second)) worst = std::max(worst.value_or(0), found->second);
  }
  return worst;
}

// What one part of a step takes of it, on the rank where it takes longest.
std::optional<double> part_of_step(const Facts& facts, const std::string& gauge) {
  const auto worst = worst_gauge(facts, gauge);
  const double step = step_seconds(facts);
  if (!worst || step <= 0) return std::nullopt;
  return std::min(1.0, *worst / step);
}

void waits(const Facts& facts, Findings& findings) {
  struct Wait {
    const char* gauge;
    const char* id;
    const char* title;
    const char* evidence;
    const char* remedy;
  };
  const Wait all[] = {
      {"data_wait_seconds", "DataWait", "Ranks wait for data: ", " for its last batch",
       "more prefetch and data workers, or look at the file system's throughput"},
      {"stall_seconds", "CheckpointStall", "Checkpoints hold training up: ", " for a snapshot in its last step",
       "save less often (checkpoint.every, checkpoint.memory.every); a snapshot that waits for the one before it needs "
       "a "
       "faster file system or network"},
  };
  for (const Wait& wait : all) {
    const auto part = part_of_step(facts, wait.gauge);
    const double worst = worst_gauge(facts, wait.gauge).value_or(0);
    if (!part || *part < kWaits || worst < 0.001) continue;
    findings.push_back({wait.id,
                        static_cast<int>(30 + 30 * *part),
                        wait.title + percent(*part) + " of a step.",
                        {"the slowest waited " + spoken(from_seconds(worst)) + wait.evidence + ", a step takes about " +
                         spoken(from_seconds(step_seconds(facts)))},
                        wait.remedy,
                        pitcrew(facts, "top " + facts.job.metadata.name)});
  }
}

const NodeNumbers* fullest(const Facts& facts) {
  const NodeNumbers* found = nullptr;
  for (const NodeNumbers& node : facts.numbers) {
    if (node.gpus > 0 && (found == nullptr || node.least_free < found->least_free)) found = &node;
  }
  return found;
}

// Of all GPUs that can tell.
std::optional<double> tensor_activity(const Facts& facts) {
  double sum = 0, gpus = 0;
  for (const NodeNumbers& node : facts.numbers) {
    sum += node.tensor.value_or(0) * static_cast<double>(node.gpus);
    gpus += node.tensor ? static_cast<double>(node.gpus) : 0;
  }
  return gpus > 0 ? std::optional(sum / gpus) : std::nullopt;
}

void gpus(const Facts& facts, Findings& findings) {
  const NodeNumbers* tight = fullest(facts);
  if (tight != nullptr && tight->least_free < kTight) {
    findings.push_back(
        {"GpuMemoryTight",
         20,
         "GPU memory is nearly used up: " + percent(tight->least_free) + " is free of a GPU of " + tight->node + ".",
         {},
         "a longer batch or fragmentation ends in an out-of-memory error; PyTorch's allocator keeps what it "
         "once had, which torch.cuda.memory_summary() tells from what is needed",
         pitcrew(facts, "nodes " + tight->node)});
  } else if (tight != nullptr && tight->least_free > kIdle) {
    findings.push_back({"GpuMemoryIdle",
                        15,
                        "At least " + percent(tight->least_free) + " of each GPU's memory is free.",
                        {},
                        "a larger micro-batch may be faster",
                        pitcrew(facts, "top " + facts.job.metadata.name)});
  }
  const auto tensor = tensor_activity(facts);
  if (tensor && *tensor < kTensorIdle) {
    findings.push_back({"TensorCoresIdle",
                        26,
                        "Tensor cores work " + percent(*tensor) + " of the time.",
                        {"a dense model in BF16 reaches 40% and more"},
                        "train in BF16 or FP8, with larger matrices; else the time goes into waiting: for data, for "
                        "checkpoints, for the network",
                        pitcrew(facts, "top " + facts.job.metadata.name)});
  }
}

struct Efa {
  size_t devices = 0;
  double sent = 0;
  const NodeNumbers* worst = nullptr;  // of those that have sent
  double again = 0;                    // its share
};

Efa efa_of(const Facts& facts) {
  Efa all;
  for (const NodeNumbers& node : facts.numbers) {
    all.devices += node.efa;
    all.sent += node.efa_sent;
    const double again = node.efa_sent > kEfaUnused ? node.efa_again / node.efa_sent : 0;
    if (all.worst != nullptr && again <= all.again) continue;
    all.worst = &node;
    all.again = again;
  }
  return all;
}

void efa(const Facts& facts, Findings& findings) {
  const Efa all = efa_of(facts);
  const auto with_gpus = std::count_if(facts.numbers.begin(), facts.numbers.end(),
                                       [](const NodeNumbers& node) { return node.gpus > 0 && node.efa > 0; });
  if (with_gpus >= 2 && all.sent < kEfaUnused) {
    findings.push_back(
        {"EfaUnused",
         58,
         "EFA is there and isn't used: its nodes talk over TCP.",
         {count_of(all.devices, "EFA device") + " on " + count_of(facts.numbers.size(), "node") + " have sent " +
          bytes(static_cast<uint64_t>(all.sent))},
         "the image needs libfabric and aws-ofi-nccl, the container vpc.amazonaws.com/efa in its limits; with "
         "NCCL_DEBUG=INFO ranks say which network NCCL took",
         pitcrew(facts, "logs " + facts.job.metadata.name + " --rank 0")});
  }
  if (all.worst != nullptr && all.again > kEfaAgain) {
    findings.push_back({"EfaSendsAgain",
                        44,
                        "EFA of " + all.worst->node + " sends " + percent(all.again) + " of its bytes again.",
                        {bytes(static_cast<uint64_t>(all.worst->efa_again)) + " of " +
                         bytes(static_cast<uint64_t>(all.worst->efa_sent)) + " since its driver was loaded"},
                        "where it stays with the node, replace the node; where many nodes do it, they are far apart: a "
                        "placement group (docs/runbooks/PitcrewEfaRetransmissions.md)",
                        pitcrew(facts, "nodes " + all.worst->node)});
  }
}

}  // namespace

std::optional<Check> check_use(const Facts& facts) {
  std::vector<std::string> parts;
  if (const NodeNumbers* node = fullest(facts))
    parts.push_back("GPU memory " + percent(node->least_free) + " free where least (" + node->node + ")");
  if (const auto tensor = tensor_activity(facts)) parts.push_back("tensor cores " + percent(*tensor) + " active");
  if (const Efa all = efa_of(facts); all.devices > 0)
    parts.push_back("EFA " + bytes(static_cast<uint64_t>(all.sent)) + " sent, at most " + percent(all.again) +
                    " again");
  if (const auto part = part_of_step(facts, "data_wait_seconds")) parts.push_back("data wait " + percent(*part));
  if (const auto part = part_of_step(facts, "stall_seconds"))
    parts.push_back("checkpoint stall " + percent(*part) + " of a step");
  if (parts.empty()) return std::nullopt;
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : ", ") + part;
  return Check{"use", CheckState::kGood, text};
}

void judge_use(const Facts& facts, Findings& findings) {
  const auto& status = facts.job.status;
  if (status.phase != api::Phase::kRunning || facts.job.spec.lifecycle.suspend) return;
  waits(facts, findings);
  if (from_seconds(status.goodput.training) < kSettled) return;
  gpus(facts, findings);
  efa(facts, findings);
}

}  // namespace pitcrew::cli
