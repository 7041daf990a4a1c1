#pragma once

#include <cstdint>

namespace pitcrew::trainer {

// A permutation of 0 … size - 1 that is computed, not stored: a Feistel network of six rounds over the smallest even
// number of bits that holds size, walked until it lands inside (Black and Rogaway 2002). At most four times too large,
// so a look-up takes fewer than four walks on average. Part of the data order `native-v1`: it may never change.
class Permutation {
 public:
  Permutation(uint64_t size, uint64_t key);
  uint64_t size() const { return size_; }
  // Where `place` goes; place < size.
  uint64_t operator()(uint64_t place) const;

 private:
  uint64_t round_trip(uint64_t x) const;

  uint64_t size_;
  uint64_t key_;
  unsigned half_bits_;
};

}  // namespace pitcrew::trainer
