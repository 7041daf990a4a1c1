#pragma once

#include <vector>

#include "trainer/model/activations.hpp"
#include "trainer/model/decoder_pass.hpp"

namespace pitcrew::trainer {

// The gradients of gains and biases of norms, which all tensor ranks hold: each computes them from its own rows or
// heads into Activations::small, and all add them up in the order of the ranks. Without a group they are written to
// their places at once. Owned by a decoder, whose kernels, activations and group outlive it.
template <typename T>
class SmallGradients {
 public:
  SmallGradients(TensorGroup* group, Kernels<T>& kernels, const Activations<T>& activations, uint32_t units)
      : group_(group), kernels_(kernels), acts_(activations), of_unit_(units) {}

  // Gives the gradients of a norm over `elements`, of a unit, their places in Activations::small. Units in their order.
  void number(uint32_t unit, Weights& weights, size_t elements);
  size_t elements() const { return next_; }

  // Where a norm's backward kernel writes, and whether it adds.
  Wide<T>* gain(const DecoderPass<T>& pass, const Weights& weights) const {
    return group_ != nullptr ? acts_.small + weights.small : pass.gradients + weights.weight;
  }
  Wide<T>* bias(const DecoderPass<T>& pass, const Weights& weights, size_t elements) const {
    return group_ != nullptr ? acts_.small + weights.small + small_stride(elements) : pass.gradients + weights.bias;
  }
  bool adds(const DecoderPass<T>& pass) const { return group_ == nullptr && pass.add; }

  // The sums of units [first, end) to their places among the pass's gradients; what has no such gradients is left
  // alone.
  void add_up(const DecoderPass<T>& pass, uint32_t first, uint32_t end);

 private:
  struct Gradient {
    size_t parameter = 0;  // its first element among the parameters
    size_t elements = 0;
    size_t small = 0;  // in Activations::small
  };
  TensorGroup* const group_;  // null: one rank has the whole width
  Kernels<T>& kernels_;
  const Activations<T>& acts_;
  std::vector<std::vector<Gradient>> of_unit_;  // in the order of Activations::small
  size_t next_ = 0;
};

}  // namespace pitcrew::trainer
