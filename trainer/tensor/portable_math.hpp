#pragma once

namespace pitcrew::trainer {

// The library's log, exp, sin and cos differ from machine to machine (it picks FMA variants at run time). These are
// additions and multiplications alone, so alike everywhere, and right to a few units in the last place of a double.
double portable_log(double x);  // x > 0; NaN and infinity as they should be
double portable_exp(double x);  // |x| below 700
struct SineCosine {
  double sine, cosine;
};
SineCosine portable_sincos(double x);  // |x| at most 2^20

}  // namespace pitcrew::trainer
