#include "trainer/model/tensor_products.hpp"

namespace pitcrew::trainer {

template <typename T>
const T* TensorProducts<T>::gathered(const Pass& pass, const T* own) {
  if (group_ == nullptr) return own;
  group_->all_gather(pass.stream, own, acts_.gathered, own_rows(pass) * width_ * sizeof(T));
  return acts_.gathered;
}

template <typename T>
void TensorProducts<T>::add_parts(const Pass& pass, T* own, const T* bias) {
  const size_t rows = own_rows(pass);
  group_->all_to_all(pass.stream, acts_.partial, acts_.gathered, rows * width_ * sizeof(T));
  kernels_.enqueue(
      pass.stream,
      SumParts<T>{
          .rows = rows, .width = width_, .count = place_.size, .parts = acts_.gathered, .out = own, .bias = bias});
}

template <typename T>
void TensorProducts<T>::by_rows(const Pass& pass, const Weights& weights, const T* x, T* out, size_t out_width) {
  linear(pass, weights, gathered(pass, x), width_, out, out_width, pass.rows());
}

template <typename T>
void TensorProducts<T>::by_columns(const Pass& pass, const Weights& weights, const T* x, size_t in, T* out) {
  if (group_ == nullptr) return linear(pass, weights, x, in, out, width_, pass.rows());
  linear(pass, {.weight = weights.weight}, x, in, acts_.partial, width_, pass.rows());
  add_parts(pass, out, weights.has_bias ? pass.params + weights.bias : nullptr);
}

template <typename T>
void TensorProducts<T>::by_rows_backward(const Pass& pass, const Weights& weights, const T* x, const T* d_out,
                                         size_t out_width, T* d_x) {
  linear_backward(pass, weights, gathered(pass, x), width_, d_out, out_width, partial_or(d_x));
  if (group_ != nullptr) add_parts(pass, d_x, nullptr);
}

template <typename T>
void TensorProducts<T>::linear(const Pass& pass, const Weights& weights, const T* x, size_t in, T* out,
                               size_t out_width, size_t rows) {
  kernels_.enqueue(pass.stream, Matmul<T>{.m = rows,
                                          .n = out_width,
                                          .k = in,
                                          .a = x,
                                          .a_stride = in,
                                          .b = pass.params + weights.weight,
                                          .b_stride = in,
                                          .b_transposed = true,
                                          .c = out,
                                          .c_stride = out_width,
                                          .bias = weights.has_bias ? pass.params + weights.bias : nullptr});
}

template <typename T>
void TensorProducts<T>::linear_backward(const Pass& pass, const Weights& weights, const T* x, size_t in, const T* d_out,
                                        size_t out_width, T* d_x) {
  const size_t rows = pass.rows();
  kernels_.enqueue(pass.stream, WeightGradient<T>{.rows = rows,
                                                  .out = out_width,
                                                  .in = in,
                                                  .d_out = d_out,
                                                  .x = x,
                                                  .gradient = pass.gradients + weights.weight,
                                                  .accumulate = pass.add});
  if (weights.has_bias) {
    kernels_.enqueue(
        pass.stream,
        ColumnSum<T>{
            .rows = rows, .n = out_width, .x = d_out, .sums = pass.gradients + weights.bias, .accumulate = pass.add});
  }
  kernels_.enqueue(pass.stream, Matmul<T>{.m = rows,
                                          .n = in,
                                          .k = out_width,
                                          .a = d_out,
                                          .a_stride = out_width,
                                          .b = pass.params + weights.weight,
                                          .b_stride = in,
                                          .c = d_x,
                                          .c_stride = in});
}

template class TensorProducts<float>;
template class TensorProducts<double>;
template class TensorProducts<BF16>;

}  // namespace pitcrew::trainer
