#include "trainer/kernels/attention_engine.hpp"

namespace pitcrew::trainer {
namespace {

// What engines take for themselves: counters and sums of tiles. A guess that building the graphs checks.
constexpr uint64_t kEngines = uint64_t{64} << 20;

uint64_t round_up(uint64_t value, uint64_t to) { return (value + to - 1) / to * to; }

}  // namespace

uint64_t cudnn_workspace_bytes(const AttentionShape& shape) {
  const uint64_t rows = shape.sequences * shape.heads * shape.length;
  const uint64_t scores =
      shape.sequences * shape.heads * round_up(shape.length, 64) * round_up(shape.length, 128) * sizeof(uint16_t);
  const uint64_t queries = rows * shape.head_width * sizeof(float);
  const uint64_t grouped = shape.heads == shape.kv_heads ? 0 : 2 * rows * shape.head_width * sizeof(uint16_t);
  return round_up(scores + queries + grouped + rows * sizeof(float) + kEngines, 1 << 20);
}

Status check_cudnn_shape(const AttentionShape& shape) {
  if (shape.head_width == 64 || shape.head_width == 128) return {};
  return Error(Code::kUnsupported, "a head is " + std::to_string(shape.head_width) +
                                       " wide, and cuDNN's attention is used for 64 and 128; set attention: own");
}

std::string cudnn_version_text(uint64_t version) {
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

}  // namespace pitcrew::trainer
