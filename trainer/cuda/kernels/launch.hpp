#pragma once

#include <cstddef>

#include "trainer/kernels/operations.hpp"

// Every operation on the GPU: enqueues its kernels on `queue` and returns. CUDA's types stay out, so that whoever calls
// needs no CUDA header.
struct CUstream_st;

namespace pitcrew::trainer::cuda {

// A cudaStream_t; null where kernels are emulated.
using Queue = CUstream_st*;

// Device memory for what an operation needs besides its operands; used by one operation at a time in a queue's order.
struct Workspace {
  std::byte* data = nullptr;
  size_t bytes = 0;
  // The first `count` elements. An operation that wants more than was planned ends the process.
  template <typename T>
  T* take(size_t count) const {
    check(count * sizeof(T));
    return reinterpret_cast<T*>(data);
  }

 private:
  void check(size_t wanted) const;
};

struct Launcher {
  Workspace workspace;
  Queue queue = nullptr;

  // The product by a plain kernel; cuBLASLt's is in products.hpp.
  void operator()(const Matmul<BF16>& op) const;
  void operator()(const WeightGradient<BF16>& op) const;
  void operator()(const ColumnSum<BF16>& op) const;
  void operator()(const EmbeddingForward<BF16>& op) const;
  void operator()(const EmbeddingBackward<BF16>& op) const;
  void operator()(const LayerNormForward<BF16>& op) const;
  void operator()(const LayerNormBackward<BF16>& op) const;
  void operator()(const RmsNormForward<BF16>& op) const;
  void operator()(const RmsNormBackward<BF16>& op) const;
  void operator()(const HeadNormForward<BF16>& op) const;
  void operator()(const HeadNormBackward<BF16>& op) const;
  void operator()(const Rope<BF16>& op) const;
  void operator()(const AttentionForward<BF16>& op) const;
  void operator()(const AttentionBackward<BF16>& op) const;
  void operator()(const SwiGluForward<BF16>& op) const;
  void operator()(const SwiGluBackward<BF16>& op) const;
  void operator()(const GeluForward<BF16>& op) const;
  void operator()(const GeluBackward<BF16>& op) const;
  void operator()(const CrossEntropyPart<BF16>& op) const;
  void operator()(const CrossEntropy<BF16>& op) const;
  void operator()(const SumParts<BF16>& op) const;
  void operator()(const Add<float>& op) const;
  void operator()(const Sum<float>& op) const;
  void operator()(const SquareSum<float>& op) const;
  void operator()(const Summarize& op) const;
  void operator()(const AdamW<BF16>& op) const;
  void operator()(const Cast<BF16>& op) const;
  void operator()(const SplitMasters& op) const;
  void operator()(const JoinMasters& op) const;
  void operator()(const Digest& op) const;
  void operator()(const DigestList& op) const;
};

}  // namespace pitcrew::trainer::cuda
