#pragma once

#include <array>
#include <cstdint>

namespace pitcrew {

// A seeded generator (xoshiro256**, Blackman and Vigna 2018, seeded by SplitMix64): the same numbers on every machine
// and with every standard library. Not for secrets. Not thread-safe.
class Random {
 public:
  using result_type = uint64_t;

  explicit Random(uint64_t seed);
  uint64_t operator()();
  static constexpr uint64_t min() { return 0; }
  static constexpr uint64_t max() { return ~uint64_t{0}; }

  // Uniform in [0, bound); bound > 0. Unbiased (Lemire 2019).
  uint64_t below(uint64_t bound);
  // Uniform in [0, 1).
  double uniform();
  bool chance(double probability) { return uniform() < probability; }
  // A generator of its own, independent of what this one is used for later.
  Random split();

 private:
  std::array<uint64_t, 4> state_;
};

// One step of SplitMix64: a good 64-bit mix of a counter.
constexpr uint64_t mix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

}  // namespace pitcrew
