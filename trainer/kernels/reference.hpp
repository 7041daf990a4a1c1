#pragma once

#include <cmath>
#include <cstddef>
#include <functional>
#include <vector>

#include "lib/base/random.hpp"
#include "trainer/kernels/attention.hpp"
#include "trainer/kernels/matmul.hpp"

// The plain loops that kernels are compared with, and what comparing takes. For tests alone.
namespace pitcrew::trainer {

inline constexpr double kGradientTolerance = 1e-5;  // of a gradient against central differences, norm-wise

template <typename T>
std::vector<T> random_values(Random& random, size_t count, double scale = 1) {
  std::vector<T> values(count);
  for (T& value : values) value = static_cast<T>(scale * (2 * random.uniform() - 1));
  return values;
}

template <typename T>
void reference(const Matmul<T>& op) {
  for (size_t i = 0; i < op.m; ++i) {
    for (size_t j = 0; j < op.n; ++j) {
      double sum = op.bias == nullptr ? 0 : op.bias[j];
      if (op.accumulate) sum += op.c[i * op.c_stride + j];
      for (size_t p = 0; p < op.k; ++p) {
        sum += double{op.a_transposed ? op.a[p * op.a_stride + i] : op.a[i * op.a_stride + p]} *
               double{op.b_transposed ? op.b[j * op.b_stride + p] : op.b[p * op.b_stride + j]};
      }
      op.c[i * op.c_stride + j] = static_cast<T>(sum);
    }
  }
}

template <typename T>
void reference(const AttentionForward<T>& op) {
  const size_t width = op.head_width, stride = (op.heads + 2 * op.kv_heads) * width;
  for (size_t s = 0; s < op.sequences; ++s) {
    for (size_t head = 0; head < op.heads; ++head) {
      const size_t kv = head / (op.heads / op.kv_heads);
      for (size_t t = 0; t < op.length; ++t) {
        const T* q = op.qkv + (s * op.length + t) * stride + head * width;
        std::vector<double> weights(t + 1);
        double total = 0;
        for (size_t u = 0; u <= t; ++u) {
          const T* k = op.qkv + (s * op.length + u) * stride + (op.heads + kv) * width;
          double score = 0;
          for (size_t i = 0; i < width; ++i) score += double{q[i]} * k[i];
          total += weights[u] = std::exp(score / std::sqrt(static_cast<double>(width)));
        }
        op.log_sum[(s * op.heads + head) * op.length + t] = static_cast<T>(std::log(total));
        for (size_t i = 0; i < width; ++i) {
          double sum = 0;
          for (size_t u = 0; u <= t; ++u) {
            sum += weights[u] * op.qkv[(s * op.length + u) * stride + (op.heads + op.kv_heads + kv) * width + i];
          }
          op.out[((s * op.length + t) * op.heads + head) * width + i] = static_cast<T>(sum / total);
        }
      }
    }
  }
}

template <typename T>
double relative_distance(const std::vector<T>& a, const std::vector<T>& b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(double{a[i]} - double{b[i]}, 2);
    norm += std::pow(double{b[i]}, 2);
  }
  return a.size() == b.size() ? std::sqrt(difference / (norm + 1e-300)) : 1e300;
}

// The gradient of Σ weights × f(x) by central differences, where `f` writes its outputs anew from x.
inline std::vector<double> finite_differences(std::vector<double>& x, const std::vector<double>& weights,
                                              const std::function<const std::vector<double>&()>& f) {
  constexpr double kStep = 1e-5;
  const auto objective = [&] {
    const std::vector<double>& out = f();
    double sum = 0;
    for (size_t i = 0; i < weights.size(); ++i) sum += weights[i] * out[i];
    return sum;
  };
  std::vector<double> gradient(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const double value = x[i];
    x[i] = value + kStep;
    const double above = objective();
    x[i] = value - kStep;
    const double below = objective();
    x[i] = value;
    gradient[i] = (above - below) / (2 * kStep);
  }
  return gradient;
}

}  // namespace pitcrew::trainer
