#include "trainer/tensor/portable_math.hpp"

#include <cmath>
#include <cstdint>

namespace pitcrew::trainer {

namespace {

constexpr double kPi = 3.14159265358979323846;
constexpr double kLn2 = 0.69314718055994530942;

}  // namespace

double portable_log(double x) {
  if (!(x < HUGE_VAL)) return x;
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

double portable_exp(double x) {
  // x = n ln2 + r, |r| <= ln2/2, in two parts so that r keeps its bits; the term of power 14 is below 2^-57.
  constexpr double kLn2High = 6.93147180369123816490e-01, kLn2Low = 1.90821492927058770002e-10;
  const double n = std::floor(x / kLn2 + 0.5);
  const double r = (x - n * kLn2High) - n * kLn2Low;
  double series = 1;
  for (int power = 14; power >= 1; --power) series = 1 + series * r / power;
  return std::ldexp(series, static_cast<int>(n));
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
    case 0:
      return {sine, cosine};
    case 1:
      return {cosine, -sine};
    case 2:
      return {-sine, -cosine};
    default:
      return {-cosine, sine};
  }
}

}  // namespace pitcrew::trainer
