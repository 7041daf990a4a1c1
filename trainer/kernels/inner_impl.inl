// The whole table for one instruction set. The including file sets PITCREW_VECTOR_BYTES, PITCREW_TILE_M,
// PITCREW_TILE_VECTORS and PITCREW_TABLE (the namespace of its table) and is compiled with that set's flags.
#include "trainer/kernels/inner.hpp"

namespace pitcrew::trainer {
namespace {

// In this order:
// clang-format off
#include "trainer/kernels/inner_vector.inl"
#include "trainer/kernels/inner_matmul.inl"
#include "trainer/kernels/inner_rows.inl"
// clang-format on

}  // namespace

namespace PITCREW_TABLE {

template <typename T>
const Inner<T>& table() {
  static constexpr Inner<T> kTable = {
      .tile_m = PITCREW_TILE_M,
      .tile_n = kTileN<T>,
      .pack_transposed = pack_transposed<T>,
      .pack_straight = pack_straight<T>,
      .multiply = multiply<T>,
      .softmax = softmax<T>,
      .softmax_backward = softmax_backward<T>,
      .dot = dot<T>,
      .multiply_by = multiply_by<T>,
      .add = add<T>,
      .add_to = add_to<T>,
      .sum = sum<T>,
      .square_sum = square_sum<T>,
      .normalize = normalize<T>,
      .mean = mean<T>,
      .variance = variance<T>,
      .normalize_backward = normalize_backward<T>,
      .swiglu = swiglu<T>,
      .swiglu_backward = swiglu_backward<T>,
      .gelu = gelu<T>,
      .gelu_backward = gelu_backward<T>,
      .rotate = rotate<T>,
      .adamw = adamw<T>,
  };
  return kTable;
}
template const Inner<float>& table();
template const Inner<double>& table();

}  // namespace PITCREW_TABLE
}  // namespace pitcrew::trainer
