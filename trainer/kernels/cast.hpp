#pragma once

#include <cstddef>
#include <cstdint>

#include "trainer/tensor/precision.hpp"

namespace pitcrew::trainer {

class WorkerPool;

// to = from, rounded to nearest, ties to even: the weights that follow from their masters.
template <typename T>
struct Cast {
  size_t elements = 0;
  const Wide<T>* from = nullptr;
  T* to = nullptr;
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

template <typename T>
void run(WorkerPool& workers, const Cast<T>& op);
void run(WorkerPool& workers, const Digest& op);

}  // namespace pitcrew::trainer
