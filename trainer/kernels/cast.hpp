#pragma once

#include <cstddef>
#include <cstdint>

#include "trainer/tensor/precision.hpp"

namespace pitcrew::trainer {

class WorkerPool;

// to = from, BF16 as split_master() rounds: the weights that follow from their masters.
template <typename T>
struct Cast {
  size_t elements = 0;
  const Wide<T>* from = nullptr;
  T* to = nullptr;
};

// Masters into their halves, and together again (tensor/precision.hpp).
struct SplitMasters {
  size_t elements = 0;
  const float* masters = nullptr;
  BF16* weights = nullptr;
  uint16_t* remainders = nullptr;
};
struct JoinMasters {
  size_t elements = 0;
  const BF16* weights = nullptr;
  const uint16_t* remainders = nullptr;
  float* masters = nullptr;
};

// digests[i] = XXH3-64 (seed 0) of data[i × chunk, (i + 1) × chunk), the last one as long as it is: what a checkpoint
// records, and what tells whether two computations gave the same bits.
struct Digest {
  const void* data = nullptr;
  size_t bytes = 0;
  size_t chunk = size_t{1} << 20;  // at least 241 and a multiple of 16
  uint64_t* digests = nullptr;     // [count()]
  size_t count() const { return (bytes + chunk - 1) / chunk; }
};

// The digests of many ranges in one operation, a table of them in device memory: what a snapshot takes. Where a range
// has remainders, the bytes are those of the floats that its halves make.
struct DigestRange {
  const void* data = nullptr;
  const uint16_t* remainders = nullptr;  // then `data` points to BF16 weights
  uint64_t bytes = 0;
  uint64_t first_digest = 0;  // ascending
};
struct DigestList {
  const DigestRange* ranges = nullptr;  // [count]
  size_t count = 0;
  size_t total = 0;  // digests of all ranges
  uint64_t* digests = nullptr;
  static constexpr size_t kChunk = Digest{}.chunk;
};

template <typename T>
void run(WorkerPool& workers, const Cast<T>& op);
void run(WorkerPool& workers, const SplitMasters& op);
void run(WorkerPool& workers, const JoinMasters& op);
void run(WorkerPool& workers, const Digest& op);
void run(WorkerPool& workers, const DigestList& op);

}  // namespace pitcrew::trainer
