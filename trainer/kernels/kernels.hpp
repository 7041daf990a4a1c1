#pragma once

#include "trainer/device/device.hpp"
#include "trainer/kernels/operations.hpp"

namespace pitcrew::trainer {

// The operations of a device. An operation is a struct of pointers to device memory and sizes, described in its own
// header; enqueue() returns at once. One implementation per device; shared by everything that computes on it.
// T: what activations and weights are; gradients, statistics and losses are Wide<T>.
template <typename T>
class Kernels {
 public:
  virtual ~Kernels() = default;
  virtual void enqueue(Stream& stream, const Matmul<T>& op) = 0;
  virtual void enqueue(Stream& stream, const WeightGradient<T>& op) = 0;
  virtual void enqueue(Stream& stream, const ColumnSum<T>& op) = 0;
  virtual void enqueue(Stream& stream, const EmbeddingForward<T>& op) = 0;
  virtual void enqueue(Stream& stream, const EmbeddingBackward<T>& op) = 0;
  virtual void enqueue(Stream& stream, const LayerNormForward<T>& op) = 0;
  virtual void enqueue(Stream& stream, const LayerNormBackward<T>& op) = 0;
  virtual void enqueue(Stream& stream, const RmsNormForward<T>& op) = 0;
  virtual void enqueue(Stream& stream, const RmsNormBackward<T>& op) = 0;
  virtual void enqueue(Stream& stream, const HeadNormForward<T>& op) = 0;
  virtual void enqueue(Stream& stream, const HeadNormBackward<T>& op) = 0;
  virtual void enqueue(Stream& stream, const Rope<T>& op) = 0;
  virtual void enqueue(Stream& stream, const AttentionForward<T>& op) = 0;
  virtual void enqueue(Stream& stream, const AttentionBackward<T>& op) = 0;
  virtual void enqueue(Stream& stream, const SwiGluForward<T>& op) = 0;
  virtual void enqueue(Stream& stream, const SwiGluBackward<T>& op) = 0;
  virtual void enqueue(Stream& stream, const GeluForward<T>& op) = 0;
  virtual void enqueue(Stream& stream, const GeluBackward<T>& op) = 0;
  virtual void enqueue(Stream& stream, const CrossEntropyPart<T>& op) = 0;
  virtual void enqueue(Stream& stream, const CrossEntropy<T>& op) = 0;
  virtual void enqueue(Stream& stream, const SumParts<T>& op) = 0;
  virtual void enqueue(Stream& stream, const Add<Wide<T>>& op) = 0;
  virtual void enqueue(Stream& stream, const Sum<Wide<T>>& op) = 0;
  virtual void enqueue(Stream& stream, const SquareSum<Wide<T>>& op) = 0;
  virtual void enqueue(Stream& stream, const Summarize& op) = 0;
  virtual void enqueue(Stream& stream, const AdamW<T>& op) = 0;
  virtual void enqueue(Stream& stream, const Cast<T>& op) = 0;
  virtual void enqueue(Stream& stream, const SplitMasters& op) = 0;
  virtual void enqueue(Stream& stream, const JoinMasters& op) = 0;
  virtual void enqueue(Stream& stream, const Digest& op) = 0;
  virtual void enqueue(Stream& stream, const DigestList& op) = 0;
};

}  // namespace pitcrew::trainer
