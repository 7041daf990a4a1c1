#include "trainer/tensor/philox.hpp"

#include <cmath>

#include "lib/base/random.hpp"
#include "trainer/tensor/portable_math.hpp"

namespace pitcrew::trainer {

namespace {

constexpr double kPi = 3.14159265358979323846;

// FNV-1a, mixed: names differ in few letters.
uint64_t hash_of(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return mix64(hash);
}

}  // namespace

std::array<uint32_t, 4> philox(std::array<uint32_t, 2> key, std::array<uint32_t, 4> counter) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

TensorRandom::TensorRandom(uint64_t seed, std::string_view tensor)
    : key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)}, tensor_(hash_of(tensor)) {}

double TensorRandom::normal(uint64_t element) const {
  const auto words = philox(key_, {static_cast<uint32_t>(element), static_cast<uint32_t>(element >> 32),
                                   static_cast<uint32_t>(tensor_), static_cast<uint32_t>(tensor_ >> 32)});
  const double radius = (words[0] + 1.0) / 4294967296.0;  // (0, 1]
  const double angle = words[1] / 4294967296.0;
  return std::sqrt(-2 * portable_log(radius)) * portable_sincos(2 * kPi * angle).cosine;
}

double TensorRandom::uniform(uint64_t element) const {
  const auto words = philox(key_, {static_cast<uint32_t>(element), static_cast<uint32_t>(element >> 32),
                                   static_cast<uint32_t>(tensor_), static_cast<uint32_t>(tensor_ >> 32)});
  return words[0] / 4294967296.0;
}

}  // namespace pitcrew::trainer
