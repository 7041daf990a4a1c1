#pragma once

#include <compare>
#include <cstdint>
#include <string>

#include "lib/base/result.hpp"

namespace pitcrew::trainer {

// What computes attention on a GPU.
enum class AttentionEngine {
  kOwn,
  kCudnn,
};

// Of one operation: AttentionForward's and AttentionBackward's sizes.
struct AttentionShape {
  uint64_t sequences = 0, length = 0, heads = 0, kv_heads = 0, head_width = 0;
  auto operator<=>(const AttentionShape&) const = default;
};

// The most that cuDNN may take beside the operands: the deterministic backward keeps the gradients of all scores in
// BF16, sums of queries' gradients in float, and with grouped queries the gradients of keys and values of every query
// head (nvidia-cudnn-frontend 1.32, scaled_dot_product_flash_attention.h), and the library something of its own.
uint64_t cudnn_workspace_bytes(const AttentionShape& shape);

// Why cuDNN isn't asked for this shape, with the remedy; kUnsupported.
Status check_cudnn_shape(const AttentionShape& shape);

// Which engine the kernels of a GPU use: the own one, until told otherwise. Used by the training thread.
class AttentionEngines {
 public:
  virtual ~AttentionEngines() = default;
  // Builds cuDNN's graphs for this shape, with a workspace of its own of so many bytes, and computes attention of this
  // shape by them from here on. Returns cuDNN's version, as cudnnGetVersion() tells it. Where it can't, nothing
  // changes.
  virtual Result<uint64_t> use_cudnn(const AttentionShape& shape, uint64_t workspace_bytes) = 0;
  // Gives back what use_cudnn() took.
  virtual void use_own() = 0;
};

// "9.19.1" of 91901.
std::string cudnn_version_text(uint64_t version);

}  // namespace pitcrew::trainer
