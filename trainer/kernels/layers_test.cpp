// What a model is made of beside products and attention: norms, activations, positions, embeddings, the loss.
#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "trainer/device/worker_pool.hpp"
#include "trainer/kernels/operations.hpp"
#include "trainer/kernels/reference.hpp"

namespace pitcrew::trainer {
namespace {

using Values = std::vector<double>;

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
  EXPECT_LT(relative_distance(d_x, numeric_x), kGradientTolerance);
  EXPECT_LT(relative_distance(d_x, numeric_residual), kGradientTolerance);
  EXPECT_LT(relative_distance(d_weight, numeric_weight), kGradientTolerance);
  EXPECT_LT(relative_distance(d_bias, numeric_bias), kGradientTolerance);
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
  EXPECT_LT(relative_distance(d_x, numeric_x), kGradientTolerance);
  EXPECT_LT(relative_distance(d_weight, numeric_weight), kGradientTolerance);
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
  EXPECT_LT(relative_distance(d_qkv, numeric), kGradientTolerance);
  EXPECT_LT(relative_distance(d_q, numeric_q), kGradientTolerance);
  EXPECT_LT(relative_distance(d_k, numeric_k), kGradientTolerance);
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

TEST(SumParts, parts_are_added_in_their_order_and_the_bias_once) {
  WorkerPool workers(2);
  const std::vector<float> parts = {1e8f, 2, -1e8f, 3, 1, 4}, bias = {0.5f, 10};
  std::vector<float> out(2);
  run(workers, SumParts<float>{
                   .rows = 1, .width = 2, .count = 3, .parts = parts.data(), .out = out.data(), .bias = bias.data()});
  EXPECT_EQ(out, (std::vector<float>{((1e8f + -1e8f) + 1.0f) + 0.5f, 19}));
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
  EXPECT_LT(relative_distance(gate_up, numeric), kGradientTolerance);
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
  EXPECT_LT(relative_distance(d_x, numeric), kGradientTolerance);
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
  EXPECT_LT(relative_distance(work, numeric), kGradientTolerance);
  double total = 0;
  for (size_t j = 0; j < kVocab; ++j) total += std::exp(logits[4 * kVocab + j]);
  EXPECT_NEAR(losses[4], std::log(total) - logits[4 * kVocab + static_cast<size_t>(tokens[6 + 1])],
              1e-13);  // prediction 5
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

}  // namespace
}  // namespace pitcrew::trainer
