#pragma once

#include "trainer/model/activations.hpp"
#include "trainer/model/decoder_pass.hpp"

namespace pitcrew::trainer {

// A decoder's matrix products, and what tensor ranks exchange around them: all ranks' rows of the residual stream are
// gathered before a product by rows; every rank's part of a product by columns goes to the rows' owners, who add the
// parts in the order of the ranks. Without a group nothing is exchanged. Owned by a decoder, whose kernels, activations
// and group outlive it.
template <typename T>
class TensorProducts {
 public:
  using Pass = DecoderPass<T>;
  TensorProducts(size_t width, TensorGroup* group, Kernels<T>& kernels, const Activations<T>& activations)
      : width_(width),
        group_(group),
        place_(group != nullptr ? group->place() : TensorPlace{}),
        kernels_(kernels),
        acts_(activations) {}

  size_t own_rows(const Pass& pass) const { return pass.rows() / place_.size; }
  // All ranks' rows of what each has its own of; `own` itself where there is one rank.
  const T* gathered(const Pass& pass, const T* own);
  // own = the sum of all ranks' parts of the own rows (+ bias); parts are what each has in Activations::partial.
  void add_parts(const Pass& pass, T* own, const T* bias);
  // Where a product that is a part is written: what add_parts() takes, or `own` where there is one rank.
  T* partial_or(T* own) const { return group_ != nullptr ? acts_.partial : own; }

  // A layer whose rows are dealt, of own rows of x; and one whose columns are, into own rows of out.
  void by_rows(const Pass& pass, const Weights& weights, const T* x, T* out, size_t out_width);
  void by_columns(const Pass& pass, const Weights& weights, const T* x, size_t in, T* out);
  void by_rows_backward(const Pass& pass, const Weights& weights, const T* x, const T* d_out, size_t out_width, T* d_x);
  // out = x · weightᵀ (+ bias)
  void linear(const Pass& pass, const Weights& weights, const T* x, size_t in, T* out, size_t out_width, size_t rows);
  // d_x = d_out · weight; the weight's gradient d_outᵀ · x, and the bias's.
  void linear_backward(const Pass& pass, const Weights& weights, const T* x, size_t in, const T* d_out,
                       size_t out_width, T* d_x);

 private:
  const size_t width_;  // of the residual stream
  TensorGroup* const group_;
  const TensorPlace place_;
  Kernels<T>& kernels_;
  const Activations<T>& acts_;
};

}  // namespace pitcrew::trainer
