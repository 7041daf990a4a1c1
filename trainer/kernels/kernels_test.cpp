#include <array>
#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "lib/base/digest.hpp"
#include "trainer/device/instructions.hpp"
#include "trainer/device/worker_pool.hpp"
#include "trainer/kernels/operations.hpp"
#include "trainer/kernels/reference.hpp"

namespace pitcrew::trainer {
namespace {

using Values = std::vector<double>;
constexpr double kTolerance = 1e-5;  // of a gradient against central differences, norm-wise

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
    EXPECT_LT(relative_distance(d_qkv, numeric), kTolerance) << length;
  }
}

TEST(LayerNorm, gradient_agrees_with_finite_differences) {
  WorkerPool workers(2);
  Random random(7);
  constexpr size_t kRows = 21, kWidth = 13;
  Values x = random_values<double>(random, kRows * kWidth), residual = random_values<double>(random, kRows * kWidth);
  Values weight = random_values<double>(random, kWidth), bias = random_values<double>(random, kWidth);
  const Values d_out = random_values<double>(random, kRows * kWidth);
  Values out(x.size()), sum(x.size()), mean(kRows), rstd(kRows), d_x(x.size(), 1), d_weight(kWidth, 7),
      d_bias(kWidth, 7);
  const auto forward = [&]() -> const Values& {
    run(workers, LayerNormForward<double>{.rows = kRows,
                                          .width = kWidth,
                                          .x = x.data(),
                                          .residual = residual.data(),
                                          .sum = sum.data(),
                                          .weight = weight.data(),
                                          .bias = bias.data(),
                                          .out = out.data(),
                                          .mean = mean.data(),
                                          .rstd = rstd.data()});
    return out;
  };
  const Values numeric_x = finite_differences(x, d_out, forward),
               numeric_residual = finite_differences(residual, d_out, forward);
  const Values numeric_weight = finite_differences(weight, d_out, forward),
               numeric_bias = finite_differences(bias, d_out, forward);
  forward();
  LayerNormBackward<double> back{.rows = kRows,
                                 .width = kWidth,
                                 .x = sum.data(),
                                 .weight = weight.data(),
                                 .mean = mean.data(),
                                 .rstd = rstd.data(),
                                 .d_out = d_out.data(),
                                 .d_x = d_x.data(),
                                 .d_weight = d_weight.data(),
                                 .d_bias = d_bias.data()};
  run(workers, back);
  EXPECT_LT(relative_distance(d_x, numeric_x), kTolerance);
  EXPECT_LT(relative_distance(d_x, numeric_residual), kTolerance);
  EXPECT_LT(relative_distance(d_weight, numeric_weight), kTolerance);
  EXPECT_LT(relative_distance(d_bias, numeric_bias), kTolerance);
  const Values once = d_x, weight_once = d_weight;
  back.accumulate_x = back.accumulate_weight = true;
  run(workers, back);
  for (size_t i = 0; i < once.size(); ++i) EXPECT_NEAR(d_x[i], 2 * once[i], 1e-13);
  for (size_t i = 0; i < weight_once.size(); ++i) EXPECT_NEAR(d_weight[i], 2 * weight_once[i], 1e-12);
}

TEST(RmsNorm, gradient_agrees_with_finite_differences) {
  WorkerPool workers(2);
  Random random(8);
  constexpr size_t kRows = 19, kWidth = 21;
  Values x = random_values<double>(random, kRows * kWidth), weight = random_values<double>(random, kWidth);
  const Values d_out = random_values<double>(random, kRows * kWidth);
  Values out(x.size()), rstd(kRows), d_x(x.size()), d_weight(kWidth);
  const auto forward = [&]() -> const Values& {
    run(workers, RmsNormForward<double>{.rows = kRows,
                                        .width = kWidth,
                                        .x = x.data(),
                                        .weight = weight.data(),
                                        .out = out.data(),
                                        .rstd = rstd.data()});
    return out;
  };
  const Values numeric_x = finite_differences(x, d_out, forward),
               numeric_weight = finite_differences(weight, d_out, forward);
  forward();
  run(workers, RmsNormBackward<double>{.rows = kRows,
                                       .width = kWidth,
                                       .x = x.data(),
                                       .weight = weight.data(),
                                       .rstd = rstd.data(),
                                       .d_out = d_out.data(),
                                       .d_x = d_x.data(),
                                       .d_weight = d_weight.data()});
  EXPECT_LT(relative_distance(d_x, numeric_x), kTolerance);
  EXPECT_LT(relative_distance(d_weight, numeric_weight), kTolerance);
}

TEST(HeadNorm, gradient_agrees_with_finite_differences) {
  WorkerPool workers(2);
  Random random(21);
  constexpr size_t kRows = 19, kHeads = 3, kKeys = 2, kWidth = 6,
                   kStride = 45;  // five heads normed, then two of values
  Values qkv = random_values<double>(random, kRows * kStride), q_weight = random_values<double>(random, kWidth),
         k_weight = random_values<double>(random, kWidth);
  const Values d_out = random_values<double>(random, qkv.size());
  Values out, kept(kRows * (kHeads + kKeys) * kWidth), rstd(kRows * (kHeads + kKeys)), d_q(kWidth), d_k(kWidth);
  const auto forward = [&]() -> const Values& {
    out = qkv;
    run(workers, HeadNormForward<double>{.rows = kRows,
                                         .heads = kHeads,
                                         .kv_heads = kKeys,
                                         .head_width = kWidth,
                                         .row_stride = kStride,
                                         .qkv = out.data(),
                                         .kept = kept.data(),
                                         .q_weight = q_weight.data(),
                                         .k_weight = k_weight.data(),
                                         .rstd = rstd.data()});
    return out;
  };
  const Values numeric = finite_differences(qkv, d_out, forward),
               numeric_q = finite_differences(q_weight, d_out, forward),
               numeric_k = finite_differences(k_weight, d_out, forward);
  EXPECT_EQ(forward()[kStride - 1], qkv[kStride - 1]);
  Values d_qkv = d_out;
  run(workers, HeadNormBackward<double>{.rows = kRows,
                                        .heads = kHeads,
                                        .kv_heads = kKeys,
                                        .head_width = kWidth,
                                        .row_stride = kStride,
                                        .d_qkv = d_qkv.data(),
                                        .kept = kept.data(),
                                        .q_weight = q_weight.data(),
                                        .k_weight = k_weight.data(),
                                        .rstd = rstd.data(),
                                        .d_q_weight = d_q.data(),
                                        .d_k_weight = d_k.data()});
  EXPECT_LT(relative_distance(d_qkv, numeric), kTolerance);
  EXPECT_LT(relative_distance(d_q, numeric_q), kTolerance);
  EXPECT_LT(relative_distance(d_k, numeric_k), kTolerance);
}

TEST(BF16, rounds_to_nearest_and_ties_to_even) {
  const auto rounded = [](float value) { return static_cast<float>(BF16(value)); };
  EXPECT_EQ(rounded(1.0f), 1.0f);
  EXPECT_EQ(rounded(1.0f + 1.0f / 256), 1.0f);               // a tie, down to the even one
  EXPECT_EQ(rounded(1.0f + 3.0f / 256), 1.0f + 4.0f / 256);  // a tie, up to the even one
  EXPECT_EQ(rounded(1.0f + 1.5f / 256), 1.0f + 2.0f / 256);
  EXPECT_EQ(rounded(-3.4e38f), -INFINITY);
  EXPECT_TRUE(std::isnan(rounded(std::nanf("1"))));
  EXPECT_EQ(rounded(INFINITY), INFINITY);
}

TEST(Digest, each_chunk_has_the_digest_that_a_checkpoint_records) {
  WorkerPool workers(2);
  std::vector<std::byte> data(2500);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i * i >> 3);
  std::vector<uint64_t> digests(3);
  run(workers, Digest{.data = data.data(), .bytes = data.size(), .chunk = 1024, .digests = digests.data()});
  EXPECT_EQ(digests[0], xxh3(data.data(), 1024));
  EXPECT_EQ(digests[2], xxh3(data.data() + 2048, 452));
}

TEST(CrossEntropy, padding_has_no_part_in_the_loss_and_no_gradient) {
  WorkerPool workers(1);
  const std::vector<int32_t> tokens = {0, 2};
  Values logits = {0.5, -1, 2, 50, NAN}, exact = {0.5, -1, 2}, loss(1), exact_loss(1);
  CrossEntropy<double> op{.rows = 1,
                          .vocab = 5,
                          .used = 3,
                          .logits = logits.data(),
                          .tokens = tokens.data(),
                          .token_stride = 2,
                          .length = 1,
                          .losses = loss.data(),
                          .backward = true};
  run(workers, op);
  op.vocab = 3;
  op.used = 0;
  op.logits = exact.data();
  op.losses = exact_loss.data();
  run(workers, op);
  EXPECT_EQ(loss, exact_loss);
  EXPECT_EQ(logits, (Values{exact[0], exact[1], exact[2], 0, 0}));
}

TEST(CrossEntropy, a_vocabulary_in_parts_gives_what_the_whole_gives) {
  WorkerPool workers(2);
  Random random(14);
  constexpr size_t kRows = 6, kVocab = 23, kUsed = 17, kRanks = 4, kHeld = 6;  // the last rank has padding alone
  const std::vector<int32_t> tokens = {0, 3, 16, 5, 6, 12, 11};
  Values whole = random_values<double>(random, kRows * kVocab, 9), losses(kRows), found(kRows);
  std::vector<Values> held(kRanks, Values(kRows * kHeld, 77));
  for (size_t row = 0; row < kRows; ++row) {
    for (size_t i = 0; i < kVocab; ++i) held[i / kHeld][row * kHeld + i % kHeld] = whole[row * kVocab + i];
  }
  CrossEntropy<double> op{.rows = kRows,
                          .vocab = kVocab,
                          .used = kUsed,
                          .logits = whole.data(),
                          .tokens = tokens.data(),
                          .token_stride = 7,
                          .length = kRows,
                          .losses = losses.data(),
                          .backward = true,
                          .scale = 0.25};
  run(workers, op);
  std::vector<SoftmaxPart<double>> parts(kRanks * kRows);
  const auto used = [&](size_t rank) { return std::min(kHeld, kUsed - std::min(kUsed, rank * kHeld)); };
  for (size_t rank = 0; rank < kRanks; ++rank) {
    const Values before = held[rank];
    run(workers, CrossEntropyPart<double>{.rows = kRows,
                                          .vocab = kHeld,
                                          .used = used(rank),
                                          .first = rank * kHeld,
                                          .logits = held[rank].data(),
                                          .tokens = tokens.data(),
                                          .token_stride = 7,
                                          .length = kRows,
                                          .parts = parts.data() + rank * kRows});
    EXPECT_EQ(held[rank], before);
  }
  op.vocab = kHeld;
  op.parts = parts.data();
  op.ranks = kRanks;
  op.losses = found.data();
  for (size_t rank = 0; rank < kRanks; ++rank) {
    op.logits = held[rank].data();
    op.first = rank * kHeld;
    op.used = used(rank);
    run(workers, op);
    EXPECT_LT(relative_distance(found, losses), 1e-14);
    for (size_t row = 0; row < kRows; ++row) {
      for (size_t i = 0; i < kHeld; ++i) {
        const size_t column = rank * kHeld + i;
        EXPECT_NEAR(held[rank][row * kHeld + i], column < kUsed ? whole[row * kVocab + column] : 0, 1e-14);
      }
    }
  }
}

TEST(SumParts, parts_are_added_in_their_order_and_the_bias_once) {
  WorkerPool workers(2);
  const std::vector<float> parts = {1e8f, 2, -1e8f, 3, 1, 4}, bias = {0.5f, 10};
  std::vector<float> out(2);
  run(workers, SumParts<float>{
                   .rows = 1, .width = 2, .count = 3, .parts = parts.data(), .out = out.data(), .bias = bias.data()});
  EXPECT_EQ(out, (std::vector<float>{((1e8f + -1e8f) + 1.0f) + 0.5f, 19}));
}

TEST(Embedding, rows_that_others_hold_read_as_zero_and_get_no_gradient) {
  WorkerPool workers(2);
  const std::vector<int32_t> tokens = {3, 1, 0, 9};
  const Values table = {10, 20}, positions = {1};  // tokens 1 and 2; position 2
  Values out(3, 7), d_table(2, 0), d_positions(1, 0);
  run(workers, EmbeddingForward<double>{.sequences = 1,
                                        .length = 3,
                                        .width = 1,
                                        .tokens = tokens.data(),
                                        .token_stride = 4,
                                        .table = table.data(),
                                        .positions = positions.data(),
                                        .out = out.data(),
                                        .held = {1, 2},
                                        .held_positions = {2, 1}});
  EXPECT_EQ(out, (Values{0, 10, 1}));
  const Values d_out = {5, 6, 7};
  run(workers, EmbeddingBackward<double>{.sequences = 1,
                                         .length = 3,
                                         .width = 1,
                                         .tokens = tokens.data(),
                                         .token_stride = 4,
                                         .d_out = d_out.data(),
                                         .d_table = d_table.data(),
                                         .d_positions = d_positions.data(),
                                         .held = {1, 2},
                                         .held_positions = {2, 1}});
  EXPECT_EQ(d_table, (Values{6, 0}));
  EXPECT_EQ(d_positions, (Values{7}));
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

TEST(Rope, turns_by_the_position_and_back) {
  WorkerPool workers(2);
  Random random(9);
  constexpr size_t kLength = 11, kWidth = 6, kHeads = 3, kStride = 25;
  Values cosines(kLength * kWidth / 2), sines(cosines.size());
  rope_table(kLength, kWidth, 10000, {}, cosines.data(), sines.data());
  EXPECT_NEAR(cosines[7 * 3 + 1], std::cos(7 * std::pow(10000.0, -1.0 / 3)), 1e-14);
  const Values before = random_values<double>(random, 2 * kLength * kStride);
  Values x = before;
  Rope<double> op{.sequences = 2,
                  .length = kLength,
                  .heads = kHeads,
                  .head_width = kWidth,
                  .row_stride = kStride,
                  .x = x.data(),
                  .cosines = cosines.data(),
                  .sines = sines.data()};
  run(workers, op);
  // Head 1 of token 5 of the second sequence, pair 2.
  const size_t at = (kLength + 5) * kStride + kWidth + 2, turn = 5 * 3 + 2;
  EXPECT_NEAR(x[at], before[at] * cosines[turn] - before[at + 3] * sines[turn], 1e-15);
  EXPECT_NEAR(x[at + 3], before[at + 3] * cosines[turn] + before[at] * sines[turn], 1e-15);
  EXPECT_EQ(x[kStride - 1], before[kStride - 1]);
  op.inverse = true;
  run(workers, op);
  EXPECT_LT(relative_distance(x, before), 1e-15);
}

TEST(SwiGlu, gradient_agrees_with_finite_differences) {
  WorkerPool workers(2);
  Random random(10);
  constexpr size_t kRows = 5, kWidth = 37;
  Values gate_up = random_values<double>(random, kRows * 2 * kWidth, 4);
  const Values d_out = random_values<double>(random, kRows * kWidth);
  Values out(d_out.size());
  const Values numeric = finite_differences(gate_up, d_out, [&]() -> const Values& {
    run(workers, SwiGluForward<double>{.rows = kRows, .width = kWidth, .gate_up = gate_up.data(), .out = out.data()});
    return out;
  });
  EXPECT_NEAR(out[1], gate_up[1] / (1 + std::exp(-gate_up[1])) * gate_up[kWidth + 1], 1e-14);
  run(workers, SwiGluBackward<double>{.rows = kRows,
                                      .width = kWidth,
                                      .gate_up = gate_up.data(),
                                      .d_out = d_out.data(),
                                      .d_gate_up = gate_up.data()});
  EXPECT_LT(relative_distance(gate_up, numeric), kTolerance);
}

TEST(Gelu, gradient_agrees_with_finite_differences) {
  WorkerPool workers(2);
  Random random(11);
  Values x = random_values<double>(random, 203, 5);
  const Values d_out = random_values<double>(random, x.size());
  Values out(x.size()), d_x(x.size());
  const Values numeric = finite_differences(x, d_out, [&]() -> const Values& {
    run(workers, GeluForward<double>{.elements = x.size(), .x = x.data(), .out = out.data()});
    return out;
  });
  EXPECT_NEAR(out[3], 0.5 * x[3] * (1 + std::tanh(std::sqrt(2 / M_PI) * (x[3] + 0.044715 * std::pow(x[3], 3)))), 1e-13);
  run(workers, GeluBackward<double>{.elements = x.size(), .x = x.data(), .d_out = d_out.data(), .d_x = d_x.data()});
  EXPECT_LT(relative_distance(d_x, numeric), kTolerance);
}

TEST(Embedding, forward_looks_up_and_backward_adds_in_token_order) {
  WorkerPool workers(2);
  Random random(12);
  constexpr size_t kWidth = 70, kLength = 5;
  const std::vector<int32_t> tokens = {3, 1, 3, 0, 2, 9, 1, 1, 1, 3, 2, 9};  // two rows of 5, one target behind each
  const Values table = random_values<double>(random, 4 * kWidth),
               positions = random_values<double>(random, kLength * kWidth);
  Values out(2 * kLength * kWidth), d_table(table.size(), 0.5), d_positions(positions.size(), 0);
  run(workers, EmbeddingForward<double>{.sequences = 2,
                                        .length = kLength,
                                        .width = kWidth,
                                        .tokens = tokens.data(),
                                        .token_stride = 6,
                                        .table = table.data(),
                                        .positions = positions.data(),
                                        .out = out.data()});
  EXPECT_EQ(out[(kLength + 3) * kWidth + 66], table[3 * kWidth + 66] + positions[3 * kWidth + 66]);
  run(workers, EmbeddingBackward<double>{.sequences = 2,
                                         .length = kLength,
                                         .width = kWidth,
                                         .tokens = tokens.data(),
                                         .token_stride = 6,
                                         .d_out = out.data(),
                                         .d_table = d_table.data(),
                                         .d_positions = d_positions.data()});
  EXPECT_NEAR(d_table[2 * kWidth + 69], 0.5 + out[4 * kWidth + 69] + out[9 * kWidth + 69], 1e-14);
  EXPECT_NEAR(d_positions[69], out[69] + out[5 * kWidth + 69], 1e-14);
}

TEST(CrossEntropy, gradient_agrees_with_finite_differences) {
  WorkerPool workers(2);
  Random random(13);
  constexpr size_t kRows = 9, kVocab = 23, kLength = 5, kFirst = 1;  // predictions 1 … 9 of two rows of 5
  std::vector<int32_t> tokens(12);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random.below(kVocab));
  Values logits = random_values<double>(random, kRows * kVocab, 3), work, losses(kRows);
  const auto evaluate = [&](bool backward) -> const Values& {
    work = logits;
    run(workers, CrossEntropy<double>{.rows = kRows,
                                      .vocab = kVocab,
                                      .logits = work.data(),
                                      .tokens = tokens.data(),
                                      .token_stride = 6,
                                      .length = kLength,
                                      .first_row = kFirst,
                                      .losses = losses.data(),
                                      .backward = backward,
                                      .scale = 0.25});
    return losses;
  };
  const Values numeric =
      finite_differences(logits, Values(kRows, 0.25), [&]() -> const Values& { return evaluate(false); });
  evaluate(true);
  EXPECT_LT(relative_distance(work, numeric), kTolerance);
  double total = 0;
  for (size_t j = 0; j < kVocab; ++j) total += std::exp(logits[4 * kVocab + j]);
  EXPECT_NEAR(losses[4], std::log(total) - logits[4 * kVocab + static_cast<size_t>(tokens[6 + 1])],
              1e-13);  // prediction 5
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
