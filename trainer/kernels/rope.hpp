#pragma once

#include <cstddef>
#include <cstdint>

#include "trainer/tensor/precision.hpp"

namespace pitcrew::trainer {

class WorkerPool;

// Rotates, in place, the first `heads` heads (queries and keys) of every row of x[sequences × length][row_stride] by
// its position: the half rotation of Llama, where element i of a head turns with element i + head_width/2 by position ×
// theta^(-2i/head_width). `inverse` turns back: the gradient.
template <typename T>
struct Rope {
  size_t sequences = 0, length = 0, heads = 0, head_width = 0, row_stride = 0;
  T* x = nullptr;
  const Wide<T>* cosines = nullptr;  // [length][head_width/2], from rope_table()
  const Wide<T>* sines = nullptr;
  bool inverse = false;
};

// How Llama 3.1 stretches its context: frequencies whose wave is longer than original_context / low_factor are divided
// by `factor`, those shorter than original_context / high_factor stay, and between the two it goes over evenly
// (transformers, modeling_rope_utils.py, "llama3").
struct RopeScaling {
  double factor = 1;  // 1: none
  double low_factor = 1;
  double high_factor = 4;
  uint32_t original_context = 8192;
  bool operator==(const RopeScaling&) const = default;
};

// Host memory: cosines and sines [length][head_width/2], computed in double with arithmetic of our own, alike on every
// machine.
template <typename T>
void rope_table(size_t length, size_t head_width, double theta, const RopeScaling& scaling, T* cosines, T* sines);

template <typename T>
void run(WorkerPool& workers, const Rope<T>& op);

}  // namespace pitcrew::trainer
