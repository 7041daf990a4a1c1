#pragma once

#include <bit>
#include <cstdint>

#include "trainer/tensor/state.hpp"

namespace pitcrew::trainer {

// The upper half of a float: what tensor cores multiply. A storage type; arithmetic is done in float.
struct BF16 {
  uint16_t bits = 0;

  BF16() = default;
  // Rounds to nearest, ties to even; a NaN stays one.
  explicit BF16(float value) {
    const auto word = std::bit_cast<uint32_t>(value);
    const bool nan = (word & 0x7fffffffu) > 0x7f800000u;
    bits = static_cast<uint16_t>(nan ? (word >> 16) | 0x40u : (word + 0x7fffu + ((word >> 16) & 1u)) >> 16);
  }
  explicit operator float() const { return std::bit_cast<float>(uint32_t{bits} << 16); }
  bool operator==(const BF16&) const = default;
};

// What stands beside values of type T where they are too coarse: gradients, master weights, moments, the statistics of
// norms and attention, losses.
template <typename T>
struct WideOf {
  using Type = T;
};
template <>
struct WideOf<BF16> {
  using Type = float;
};
template <typename T>
using Wide = typename WideOf<T>::Type;

template <typename T>
inline constexpr DType kDType = DType::kF32;
template <>
inline constexpr DType kDType<double> = DType::kF64;
template <>
inline constexpr DType kDType<BF16> = DType::kBF16;

}  // namespace pitcrew::trainer
