#include "trainer/tensor/philox.hpp"

#include <cmath>

#include "lib/base/random.hpp"

namespace pitcrew::trainer {

namespace {

constexpr double kPi = 3.14159265358979323846;
constexpr double kLn2 = 0.69314718055994530942;

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

double portable_log(double x) {
  int exponent;
  double mantissa = std::frexp(x, &exponent);  // exact
  if (mantissa < 0.70710678118654752440) {
    mantissa *= 2;
    --exponent;
  }
  // log m = 2 atanh(s), s = (m-1)/(m+1), |s| < 0.1716: the term of power 21 is below 2^-55.
  const double s = (mantissa - 1) / (mantissa + 1);
  const double square = s * s;
  double series = 0;
  for (int power = 21; power >= 1; power -= 2) series = series * square + 1.0 / power;
  return exponent * kLn2 + 2 * s * series;
}

SineCosine portable_sincos(double x) {
  // Fold by multiples of π/2, in two parts so that the remainder keeps its bits.
  constexpr double kHalfPiHigh = 1.57079632673412561417, kHalfPiLow = 6.07710050650619224932e-11;
  const double turns = std::floor(x / (kPi / 2) + 0.5);
  const double r = (x - turns * kHalfPiHigh) - turns * kHalfPiLow;
  const double square = r * r;
  double sine = 0, cosine = 0;
  for (int power = 19; power >= 1; power -= 2) sine = 1 - sine * square / ((power + 1) * (power + 2.0));
  for (int power = 18; power >= 0; power -= 2) cosine = 1 - cosine * square / ((power + 1.0) * (power + 2));
  sine *= r;
  switch (static_cast<int64_t>(turns) & 3) {
    case 0: return {sine, cosine};
    case 1: return {cosine, -sine};
    case 2: return {-sine, -cosine};
    default: return {-cosine, sine};
  }
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
