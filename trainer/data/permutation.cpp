#include "trainer/data/permutation.hpp"

#include <bit>

#include "lib/base/random.hpp"
#include "lib/base/result.hpp"

namespace pitcrew::trainer {

Permutation::Permutation(uint64_t size, uint64_t key) : size_(size), key_(key) {
  PITCREW_INVARIANT(size > 0 && size <= uint64_t{1} << 62, "a permutation of something");
  const auto bits = static_cast<unsigned>(std::bit_width(size - 1));
  half_bits_ = bits < 2 ? 1 : (bits + 1) / 2;
}

uint64_t Permutation::operator()(uint64_t place) const {
  uint64_t x = round_trip(place);
  while (x >= size_) x = round_trip(x);
  return x;
}

uint64_t Permutation::round_trip(uint64_t x) const {
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  uint64_t left = x >> half_bits_, right = x & mask;
  for (uint64_t round = 0; round < 6; ++round) {
    const uint64_t next = left ^ (mix64(mix64(key_ + round) ^ right) & mask);
    left = right;
    right = next;
  }
  return left << half_bits_ | right;
}

}  // namespace pitcrew::trainer
