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

// A float master in two halves: the BF16 weight that is multiplied with, and the 16 bits that it leaves out. The weight
// is the master rounded to nearest, ties away from zero: with ties to even the even weights would stand for 65,537
// masters each, one more than 16 bits can tell apart. So the master comes back bit for bit; a NaN as a NaN.
struct MasterHalves {
  BF16 weight;
  uint16_t remainder = 0;
};
inline MasterHalves split_master(float master) {
  const auto word = std::bit_cast<uint32_t>(master);
  MasterHalves halves;
  if ((word & 0x7fffffffu) > 0x7f800000u) {
    halves.weight.bits = static_cast<uint16_t>((word >> 16 & 0x8000u) | 0x7fc0u);
    return halves;
  }
  halves.weight.bits = static_cast<uint16_t>((word + 0x8000u) >> 16);
  halves.remainder = static_cast<uint16_t>(word);
  return halves;
}
inline float join_master(MasterHalves halves) {
  // A remainder of half a unit or more was rounded up.
  const uint32_t upper = uint32_t{halves.weight.bits} - (halves.remainder >> 15);
  return std::bit_cast<float>(upper << 16 | halves.remainder);
}

enum class Masters : uint8_t {
  kFloat,      // beside the weights, 4 bytes a parameter
  kRemainder,  // the weights' other half, 2 bytes a parameter; the same bits result
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
