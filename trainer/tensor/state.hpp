#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "trainer/tensor/cut.hpp"

namespace pitcrew::trainer {

enum class DType : uint8_t { kF32, kF64, kBF16, kU8, kI32, kU32, kI64, kU64 };

constexpr size_t size_of(DType type) {
  switch (type) {
    case DType::kU8:
      return 1;
    case DType::kBF16:
      return 2;
    case DType::kF32:
    case DType::kI32:
    case DType::kU32:
      return 4;
    case DType::kF64:
    case DType::kI64:
    case DType::kU64:
      return 8;
  }
  return 0;
}

// One tensor of the training state, as checkpoints see it: a name, a global shape, and where the elements that this
// rank holds lie on the device (row-major, contiguous). Tensor ranks each hold a cut of it; replicas hold all elements
// of that, of shards each holds a run of them, which may be empty. Of the ranks that hold the same run each saves a
// part of it.
struct StateTensor {
  std::string name;  // "layers.3.attn.qkv.weight", with ".m" and ".v" behind it for AdamW's moments
  DType dtype = DType::kF32;
  std::vector<uint64_t> shape;
  std::byte* data = nullptr;  // element number `first` of the cut
  TensorCut cut = {};
  uint64_t first = 0;
  uint64_t count = kAll;
  // Where set, the elements are floats kept in two halves (MasterHalves): `data` holds the weights, this the
  // remainders.
  std::byte* remainders = nullptr;
  // Tensors of one bucket are written together by the optimizer, and buckets in this order: snapshots copy them so.
  uint32_t bucket = 0;

  static constexpr uint64_t kAll = ~uint64_t{0};
  // Of the whole cut.
  uint64_t elements() const { return held_elements(shape, cut); }
  // Of this rank's run.
  uint64_t held() const { return count == kAll ? elements() : count; }
  uint64_t bytes() const { return held() * size_of(dtype); }
};

}  // namespace pitcrew::trainer
