// What works on gradients and on the state as a whole: sums, norms, AdamW, digests.
#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "lib/base/digest.hpp"
#include "trainer/device/worker_pool.hpp"
#include "trainer/kernels/operations.hpp"
#include "trainer/kernels/reference.hpp"

namespace pitcrew::trainer {
namespace {

using Values = std::vector<double>;

TEST(Digest, each_chunk_has_the_digest_that_a_checkpoint_records) {
  WorkerPool workers(2);
  std::vector<std::byte> data(2500);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i * i >> 3);
  std::vector<uint64_t> digests(3);
  run(workers, Digest{.data = data.data(), .bytes = data.size(), .chunk = 1024, .digests = digests.data()});
  EXPECT_EQ(digests[0], xxh3(data.data(), 1024));
  EXPECT_EQ(digests[2], xxh3(data.data() + 2048, 452));
}

TEST(Summarize, square_sums_of_several_parts_are_one_norm) {
  WorkerPool workers(1);
  const std::vector<float> x = {3, 4};
  double sums[2] = {0, 144};
  run(workers, SquareSum<float>{.elements = 1, .x = x.data(), .sum = sums});
  run(workers, SquareSum<float>{.elements = 1, .x = x.data() + 1, .sum = sums, .accumulate = true});
  GradientSummary summary;
  run(workers, Summarize{.square_sum = sums, .tokens = 1, .out = &summary, .parts = 2});
  EXPECT_EQ(summary.norm, 13);
}

TEST(Reduce, sums_are_right_and_alike_for_any_number_of_threads) {
  Random random(14);
  for (const size_t elements : {size_t{0}, size_t{1}, size_t{100}, kSumBlock, 5 * kSumBlock + 77}) {
    const auto x = random_values<float>(random, elements);
    double expected = 0, expected_square = 0, first = 0, sum = 0, square = 0;
    for (const float value : x) expected += value, expected_square += double{value} * value;
    for (const unsigned threads : {1u, 2u, 3u}) {
      WorkerPool workers(threads);
      run(workers, Sum<float>{.elements = elements, .x = x.data(), .sum = &sum});
      run(workers, SquareSum<float>{.elements = elements, .x = x.data(), .sum = &square});
      if (threads == 1) first = sum;
      EXPECT_EQ(sum, first);
      EXPECT_NEAR(sum, expected, 1e-9);
      EXPECT_NEAR(square, expected_square, 1e-9 * (1 + expected_square));
    }
  }
}

TEST(Reduce, a_gradient_is_clipped_to_its_largest_norm) {
  WorkerPool workers(1);
  const double square_sum = 400;
  GradientSummary summary;
  run(workers, Summarize{.square_sum = &square_sum, .tokens = 4, .max_norm = 2, .out = &summary});
  EXPECT_EQ(summary.norm, 5);
  EXPECT_DOUBLE_EQ(summary.scale, 0.25 * 2 / 5);
  EXPECT_EQ(summary.finite, 1u);
  run(workers, Summarize{.square_sum = &square_sum, .tokens = 4, .max_norm = 6, .out = &summary});
  EXPECT_DOUBLE_EQ(summary.scale, 0.25);
  run(workers, Summarize{.square_sum = &square_sum, .tokens = 4, .out = &summary, .limit = 5});
  EXPECT_EQ(summary.finite, 1u);
  run(workers, Summarize{.square_sum = &square_sum, .tokens = 4, .out = &summary, .limit = 4.9});
  EXPECT_EQ(summary.finite, 0u);
}

TEST(AdamW, agrees_with_the_formula) {
  WorkerPool workers(2);
  Random random(15);
  const size_t n = 1003;
  Values p = random_values<double>(random, n), m = random_values<double>(random, n),
         v = random_values<double>(random, n);
  const Values g = random_values<double>(random, n);
  for (double& value : v) value *= value;
  const Values p0 = p, m0 = m, v0 = v;
  const GradientSummary gradient{.norm = 1, .scale = 0.5, .finite = 1};
  run(workers, AdamW<double>{.elements = n,
                             .params = p.data(),
                             .m = m.data(),
                             .v = v.data(),
                             .gradients = g.data(),
                             .gradient = &gradient,
                             .learning_rate = 0.1,
                             .beta1 = 0.9,
                             .beta2 = 0.95,
                             .epsilon = 1e-8,
                             .weight_decay = 0.2,
                             .step = 7});
  for (size_t i = 0; i < n; ++i) {
    const double first = 0.9 * m0[i] + 0.1 * 0.5 * g[i], second = 0.95 * v0[i] + 0.05 * 0.25 * g[i] * g[i];
    const double hat1 = first / (1 - std::pow(0.9, 7)), hat2 = second / (1 - std::pow(0.95, 7));
    EXPECT_NEAR(p[i], p0[i] * (1 - 0.1 * 0.2) - 0.1 * hat1 / (std::sqrt(hat2) + 1e-8), 1e-12);
    EXPECT_NEAR(m[i], first, 1e-15);
    EXPECT_NEAR(v[i], second, 1e-15);
  }
}

}  // namespace
}  // namespace pitcrew::trainer
