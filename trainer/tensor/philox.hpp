#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace pitcrew::trainer {

// Philox4x32-10 (Salmon et al., SC11): four random words that depend on key and counter alone.
std::array<uint32_t, 4> philox(std::array<uint32_t, 2> key, std::array<uint32_t, 4> counter);

// Random numbers of one tensor, each a function of (seed, tensor name, element): alike on every machine and for every
// way of sharding. Arithmetic of our own, since the library's log and cos differ from machine to machine.
class TensorRandom {
 public:
  TensorRandom(uint64_t seed, std::string_view tensor);
  // Normal with mean 0 and deviation 1 (Box and Muller).
  double normal(uint64_t element) const;
  // Uniform in [0, 1), 32 bits.
  double uniform(uint64_t element) const;

 private:
  std::array<uint32_t, 2> key_;
  uint64_t tensor_;
};

}  // namespace pitcrew::trainer
