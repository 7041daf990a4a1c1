#pragma once

#include <cstddef>
#include <cstdint>

#include "trainer/tensor/precision.hpp"

namespace pitcrew::trainer {

class WorkerPool;

// The rows of a table that are here: [first, first + count). What lies outside reads as zero and gets no gradient:
// other tensor ranks have it.
struct HeldRows {
  size_t first = 0;
  size_t count = ~size_t{0};
};

// out[s][t] = table[tokens[s][t]] (+ positions[t]); token rows are `token_stride` apart.
template <typename T>
struct EmbeddingForward {
  size_t sequences = 0, length = 0, width = 0;
  const int32_t* tokens = nullptr;
  size_t token_stride = 0;
  const T* table = nullptr;
  const T* positions = nullptr;  // null for none
  T* out = nullptr;
  HeldRows held = {}, held_positions = {};
};

// d_table[tokens[s][t]] += d_out[s][t]; d_positions[t] += Σs d_out[s][t]. Adds to what is there, in the order of the
// tokens.
template <typename T>
struct EmbeddingBackward {
  size_t sequences = 0, length = 0, width = 0;
  const int32_t* tokens = nullptr;
  size_t token_stride = 0;
  const T* d_out = nullptr;
  Wide<T>* d_table = nullptr;
  Wide<T>* d_positions = nullptr;  // null for none
  HeldRows held = {}, held_positions = {};
};

template <typename T>
void run(WorkerPool& workers, const EmbeddingForward<T>& op);
template <typename T>
void run(WorkerPool& workers, const EmbeddingBackward<T>& op);

}  // namespace pitcrew::trainer
