// Products of matrices, and attention.
#include <array>
#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "trainer/device/instructions.hpp"
#include "trainer/device/worker_pool.hpp"
#include "trainer/kernels/operations.hpp"
#include "trainer/kernels/reference.hpp"

namespace pitcrew::trainer {
namespace {

using Values = std::vector<double>;

TEST(Instructions, this_run_uses_what_was_asked_for_or_less) {
  RecordProperty("instructions", std::string(to_string(instructions())));
  const char* asked = std::getenv("PITCREW_INSTRUCTIONS");
  const bool baseline = asked != nullptr && std::string_view(asked) == "baseline";
  EXPECT_TRUE(!baseline || instructions() == Instructions::kBaseline);
}

template <typename T>
void matmul_on_random_shapes(double tolerance) {
  Random random(3);
  WorkerPool workers(2);
  for (int round = 0; round < 120; ++round) {
    const size_t limit = round % 10 == 0 ? 400 : 70;
    const size_t m = 1 + random.below(limit), n = 1 + random.below(limit),
                 k = 1 + random.below(round % 7 == 0 ? 900 : 70);
    const bool ta = random.chance(0.5), tb = random.chance(0.5);
    const size_t a_stride = (ta ? m : k) + random.below(5), b_stride = (tb ? k : n) + random.below(5),
                 c_stride = n + random.below(5);
    const auto a = random_values<T>(random, a_stride * (ta ? k : m)),
               b = random_values<T>(random, b_stride * (tb ? n : k));
    const auto bias = random_values<T>(random, n);
    auto c = random_values<T>(random, c_stride * m), expected = c;
    Matmul<T> op{.m = m,
                 .n = n,
                 .k = k,
                 .a = a.data(),
                 .a_stride = a_stride,
                 .a_transposed = ta,
                 .b = b.data(),
                 .b_stride = b_stride,
                 .b_transposed = tb,
                 .c = c.data(),
                 .c_stride = c_stride,
                 .accumulate = random.chance(0.5),
                 .bias = random.chance(0.5) ? bias.data() : nullptr};
    run(workers, op);
    op.c = expected.data();
    reference(op);
    ASSERT_LT(relative_distance(c, expected), tolerance)
        << m << "×" << n << "×" << k << (ta ? " aᵀ" : "") << (tb ? " bᵀ" : "");
  }
}
TEST(Matmul, agrees_with_the_plain_loop_on_random_shapes_in_float) { matmul_on_random_shapes<float>(2e-6); }
TEST(Matmul, agrees_with_the_plain_loop_on_random_shapes_in_double) { matmul_on_random_shapes<double>(1e-14); }

TEST(ColumnSum, sums_every_column) {
  Random random(4);
  WorkerPool workers(2);
  const auto x = random_values<double>(random, 37 * 131);
  Values sums(131, 1), expected(131, 1);
  run(workers, ColumnSum<double>{.rows = 37, .n = 131, .x = x.data(), .sums = sums.data(), .accumulate = true});
  for (size_t i = 0; i < x.size(); ++i) expected[i % 131] += x[i];
  EXPECT_LT(relative_distance(sums, expected), 1e-14);
}

template <typename T>
void attention_on_random_shapes(double tolerance) {
  Random random(5);
  WorkerPool workers(2);
  for (int round = 0; round < 30; ++round) {
    const size_t kv = 1 + random.below(3), heads = kv * (1 + random.below(3)),
                 length = 1 + random.below(round % 5 == 0 ? 200 : 40);
    const size_t width = 1 + random.below(40), sequences = 1 + random.below(3);
    const auto qkv = random_values<T>(random, sequences * length * (heads + 2 * kv) * width, 2);
    std::vector<T> out(sequences * length * heads * width), expected(out.size()), log_sum(sequences * heads * length),
        expected_sum(log_sum.size());
    AttentionForward<T> op{.sequences = sequences,
                           .length = length,
                           .heads = heads,
                           .kv_heads = kv,
                           .head_width = width,
                           .qkv = qkv.data(),
                           .out = out.data(),
                           .log_sum = log_sum.data()};
    run(workers, op);
    op.out = expected.data();
    op.log_sum = expected_sum.data();
    reference(op);
    ASSERT_LT(relative_distance(out, expected), tolerance) << length << " tokens, heads of " << width;
    ASSERT_LT(relative_distance(log_sum, expected_sum), tolerance);
  }
}
TEST(Attention, agrees_with_the_plain_loop_on_random_shapes_in_float) { attention_on_random_shapes<float>(3e-6); }
TEST(Attention, agrees_with_the_plain_loop_on_random_shapes_in_double) { attention_on_random_shapes<double>(1e-13); }

TEST(Attention, gradient_agrees_with_finite_differences) {
  WorkerPool workers(2);
  Random random(6);
  // The last crosses a block of 64 queries.
  for (const auto& [sequences, length, heads, kv, width] :
       {std::array<size_t, 5>{2, 7, 4, 2, 5}, {1, 9, 3, 1, 3}, {1, 13, 2, 2, 8}, {1, 71, 1, 1, 2}}) {
    Values qkv = random_values<double>(random, sequences * length * (heads + 2 * kv) * width);
    const Values d_out = random_values<double>(random, sequences * length * heads * width);
    Values out(d_out.size()), log_sum(sequences * heads * length), d_qkv(qkv.size(), NAN);
    const auto forward = [&, s = sequences, l = length, h = heads, v = kv, w = width]() -> const Values& {
      run(workers, AttentionForward<double>{.sequences = s,
                                            .length = l,
                                            .heads = h,
                                            .kv_heads = v,
                                            .head_width = w,
                                            .qkv = qkv.data(),
                                            .out = out.data(),
                                            .log_sum = log_sum.data()});
      return out;
    };
    const Values numeric = finite_differences(qkv, d_out, forward);
    forward();
    run(workers, AttentionBackward<double>{.sequences = sequences,
                                           .length = length,
                                           .heads = heads,
                                           .kv_heads = kv,
                                           .head_width = width,
                                           .qkv = qkv.data(),
                                           .out = out.data(),
                                           .log_sum = log_sum.data(),
                                           .d_out = d_out.data(),
                                           .d_qkv = d_qkv.data()});
    EXPECT_LT(relative_distance(d_qkv, numeric), kGradientTolerance) << length;
  }
}

}  // namespace
}  // namespace pitcrew::trainer
