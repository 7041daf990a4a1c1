#pragma once

#include <cstddef>

namespace pitcrew::trainer {

// The innermost loops, compiled once for every instruction set (inner_*.cpp) and chosen at run time. Rows are
// contiguous; sums run in an order that n and the instruction set fix. Files that define these include no library
// headers: an inline function compiled for AVX-512 there could be the copy that the linker keeps for everybody.
template <typename T>
struct Inner {
  // Matrix products work on packed panels: `a` in panels of tile_m rows, [panel][k][tile_m]; `b` in panels of tile_n
  // columns, [panel][k][tile_n]; what is missing at the edges is zero.
  size_t tile_m, tile_n;
  // to[p][j] = from[j][p] for j < valid and 0 up to `panel`; rows of `from` are `stride` apart.
  void (*pack_transposed)(T* to, size_t panel, const T* from, size_t stride, size_t valid, size_t k);
  // to[p][j] = from[p][j], the same way.
  void (*pack_straight)(T* to, size_t panel, const T* from, size_t stride, size_t valid, size_t k);
  // c (+)= a · b over packed panels; a's panels are a_step apart, b's b_step.
  void (*multiply)(size_t m, size_t n, size_t k, const T* a, size_t a_step, const T* b, size_t b_step, T* c,
                   size_t c_stride, bool accumulate);

  // x = exp(scale × x - shift) with shift = max(scale × x), which is returned; sum gets the exponentials' sum.
  T (*softmax)(size_t n, T* x, T scale, T* sum);
  // p = exp(scale × p - log_sum); d = p × (d - delta) × scale.
  void (*softmax_backward)(size_t n, T* p, T* d, T scale, T log_sum, T delta);
  T (*dot)(size_t n, const T* a, const T* b);
  // x *= factor.
  void (*multiply_by)(size_t n, T* x, T factor);
  // to += x.
  void (*add)(size_t n, T* to, const T* x);
  // to = a + b.
  void (*add_to)(size_t n, T* to, const T* a, const T* b);
  double (*sum)(size_t n, const T* x);
  double (*square_sum)(size_t n, const T* x);

  // out = (x - mean) × rstd × weight (+ bias).
  void (*normalize)(size_t n, const T* x, T mean, T rstd, const T* weight, const T* bias, T* out);
  T (*mean)(size_t n, const T* x);
  // Mean of (x - mean)².
  T (*variance)(size_t n, const T* x, T mean);
  // One row back: h = (x - mean) × rstd; g = d_out × weight; d_x (+)= rstd × (g - centered × mean(g) - h × mean(g ×
  // h)); d_weight += d_out × h; d_bias += d_out unless null.
  void (*normalize_backward)(size_t n, const T* x, T mean, T rstd, bool centered, const T* weight, const T* d_out,
                             T* d_x, bool accumulate, T* d_weight, T* d_bias);

  void (*swiglu)(size_t n, const T* gate, const T* up, T* out);
  void (*swiglu_backward)(size_t n, const T* gate, const T* up, const T* d_out, T* d_gate, T* d_up);
  void (*gelu)(size_t n, const T* x, T* out);
  void (*gelu_backward)(size_t n, const T* x, const T* d_out, T* d_x);
  // (a, b) = (a × cos - b × sin, b × cos + a × sin); sign -1 turns back.
  void (*rotate)(size_t n, T* a, T* b, const T* cosines, const T* sines, T sign);
  void (*adamw)(size_t n, T* params, T* m, T* v, const T* gradients, T scale, T beta1, T beta2, T step_size,
                T root_correction, T epsilon, T decay);
};

// The table of this machine's instruction set (device/instructions.hpp).
template <typename T>
const Inner<T>& inner();

}  // namespace pitcrew::trainer
