#include "trainer/train/attention_choice.hpp"

namespace pitcrew::trainer {
namespace {

// Why these ranks can't use cuDNN together; empty: they can.
std::string obstacle(std::span<const uint64_t> versions, const std::string& why_not) {
  if (!why_not.empty()) return why_not;
  for (size_t rank = 0; rank < versions.size(); ++rank) {
    const std::string name = "rank " + std::to_string(rank);
    if (versions[rank] == 0) return name + " can't use cuDNN (its own lines say why)";
    if (versions[rank] != versions[0]) {
      return name + " has cuDNN " + cudnn_version_text(versions[rank]) + ", rank 0 has " +
             cudnn_version_text(versions[0]) + "; install the same on all nodes";
    }
  }
  return "";
}

}  // namespace

Result<AttentionChoice> choose_together(std::optional<AttentionEngine> asked, std::span<const uint64_t> versions,
                                        const std::string& why_not) {
  if (asked == AttentionEngine::kOwn) return AttentionChoice{};
  const std::string obstacle_ = obstacle(versions, why_not);
  if (obstacle_.empty()) {
    return AttentionChoice{AttentionEngine::kCudnn, "attention by cuDNN " + cudnn_version_text(versions[0])};
  }
  if (asked) return Error(Code::kUnsupported, "attention: cudnn: " + obstacle_);
  return AttentionChoice{AttentionEngine::kOwn, "attention by own kernels: " + obstacle_};
}

}  // namespace pitcrew::trainer
