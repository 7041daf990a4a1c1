// What a model is made of, beside attention: products, embeddings, norms, activations, the loss.
#include "trainer/cuda/twin_fixture.hpp"

namespace pitcrew::trainer {
namespace {

TEST_F(CudaTwin, products_of_every_shape_and_transposition_agree) {
  for (int round = 0; round < 2 * rounds(); ++round) {
    const size_t m = size(400, 90), n = size(400, 90), k = size(400, 70);
    const bool at = random.below(2) == 0, bt = random.below(2) == 0, accumulate = random.below(2) == 0;
    const bool biased = random.below(2) == 0;
    auto a = bf16(m * k), b = bf16(k * n), c = bf16(m * n), bias = bf16(n);
    const auto op = [&](bool device) {
      const auto of = [&](auto& twin) { return device ? twin.device() : twin.cpu(); };
      return Matmul<BF16>{
          m, n, k, of(a), at ? m : k, at, of(b), bt ? k : n, bt, of(c), n, accumulate, biased ? of(bias) : nullptr};
    };
    run(op(false), op(true));
    EXPECT_LT(c.distance(), kOneRounding) << m << "x" << n << "x" << k << ", seed " << seed;

    auto d_out = bf16(m * n), x = bf16(m * k);
    auto gradient = floats(n * k);
    run(WeightGradient<BF16>{m, n, k, d_out.cpu(), x.cpu(), gradient.cpu(), accumulate},
        WeightGradient<BF16>{m, n, k, d_out.device(), x.device(), gradient.device(), accumulate});
    EXPECT_LT(gradient.distance(), kFloatSums) << m << "x" << n << "x" << k << ", seed " << seed;
  }
}

TEST_F(CudaTwin, sums_of_columns_agree) {
  for (int round = 0; round < rounds(); ++round) {
    const size_t rows = size(3000, 200), n = size(900, 150);
    auto x = bf16(rows * n);
    auto sums = floats(n);
    const bool accumulate = round % 2 == 0;
    run(ColumnSum<BF16>{rows, n, x.cpu(), sums.cpu(), accumulate},
        ColumnSum<BF16>{rows, n, x.device(), sums.device(), accumulate});
    EXPECT_LT(sums.distance(), kFloatSums) << rows << "x" << n << ", seed " << seed;
  }
}

TEST_F(CudaTwin, embeddings_agree_bit_for_bit) {
  for (int round = 0; round < rounds(); ++round) {
    const size_t sequences = size(5, 3), length = size(300, 40), width = size(300, 70), vocab = 1 + random.below(90);
    auto token = tokens(sequences * (length + 1), vocab);
    // Every third time only a part of both tables is held.
    const bool partly = round % 3 == 2;
    const HeldRows held = partly ? HeldRows{vocab / 3, vocab / 2 + 1} : HeldRows{};
    const HeldRows held_positions = partly ? HeldRows{length / 3, length / 2 + 1} : HeldRows{};
    auto table = bf16(vocab * width), positions = bf16(length * width), out = bf16(sequences * length * width);
    const bool positioned = round % 2 == 0;
    const auto forward = [&](bool device) {
      const auto of = [&](auto& twin) { return device ? twin.device() : twin.cpu(); };
      return EmbeddingForward<BF16>{
          sequences, length, width,         of(token), length + 1, of(table), positioned ? of(positions) : nullptr,
          of(out),   held,   held_positions};
    };
    run(forward(false), forward(true));
    EXPECT_TRUE(out.same_bits()) << "seed " << seed;
    auto d_table = floats(vocab * width), d_positions = floats(length * width);
    const auto backward = [&](bool device) {
      const auto of = [&](auto& twin) { return device ? twin.device() : twin.cpu(); };
      return EmbeddingBackward<BF16>{sequences,  length,        width,       of(token),
                                     length + 1, of(out),       of(d_table), positioned ? of(d_positions) : nullptr,
                                     held,       held_positions};
    };
    run(backward(false), backward(true));
    EXPECT_TRUE(d_table.same_bits()) << "seed " << seed;
    EXPECT_TRUE(d_positions.same_bits()) << "seed " << seed;
  }
}

TEST_F(CudaTwin, layernorm_agrees) {
  for (int round = 0; round < rounds(); ++round) {
    const size_t rows = size(1500, 300), width = size(1700, 160);
    auto x = bf16(rows * width), residual = bf16(rows * width), sum = bf16(rows * width), out = bf16(rows * width);
    auto weight = bf16(width), bias = bf16(width), d_out = bf16(rows * width), d_x = bf16(rows * width);
    auto mean = floats(rows), rstd = floats(rows), d_weight = floats(width), d_bias = floats(width);
    const bool added = round % 2 == 0, accumulate = round % 3 == 0;
    const auto forward = [&](bool device) {
      const auto of = [&](auto& twin) { return device ? twin.device() : twin.cpu(); };
      return LayerNormForward<BF16>{.rows = rows,
                                    .width = width,
                                    .x = of(x),
                                    .residual = added ? of(residual) : nullptr,
                                    .sum = added ? of(sum) : nullptr,
                                    .weight = of(weight),
                                    .bias = of(bias),
                                    .out = of(out),
                                    .mean = of(mean),
                                    .rstd = of(rstd)};
    };
    run(forward(false), forward(true));
    const std::string where = std::to_string(rows) + "x" + std::to_string(width) + ", seed " + std::to_string(seed);
    EXPECT_TRUE(sum.same_bits()) << where;
    EXPECT_LT(out.distance(), kOneRounding) << where;
    EXPECT_LT(rstd.distance(), width == 1 ? 1e-3 : kFloatSums) << where;
    const auto backward = [&](bool device) {
      const auto of = [&](auto& twin) { return device ? twin.device() : twin.cpu(); };
      return LayerNormBackward<BF16>{.rows = rows,
                                     .width = width,
                                     .x = added ? of(sum) : of(x),
                                     .weight = of(weight),
                                     .mean = of(mean),
                                     .rstd = of(rstd),
                                     .d_out = of(d_out),
                                     .d_x = of(d_x),
                                     .accumulate_x = accumulate,
                                     .d_weight = of(d_weight),
                                     .d_bias = of(d_bias),
                                     .accumulate_weight = accumulate};
    };
    if (width == 1) continue;  // all of it is rounding then
    run(backward(false), backward(true));
    EXPECT_LT(d_x.distance(), 2 * kOneRounding) << where;
    EXPECT_LT(d_weight.distance(), 10 * kFloatSums) << where;
    EXPECT_LT(d_bias.distance(), kFloatSums) << where;
  }
}

TEST_F(CudaTwin, rmsnorm_agrees) {
  for (int round = 0; round < rounds(); ++round) {
    const size_t rows = size(1500, 300), width = size(1700, 160);
    auto x = bf16(rows * width), residual = bf16(rows * width), sum = bf16(rows * width), out = bf16(rows * width);
    auto weight = bf16(width), d_out = bf16(rows * width), d_x = bf16(rows * width);
    auto rstd = floats(rows), d_weight = floats(width);
    const bool added = round % 2 == 0, accumulate = round % 3 == 0;
    const auto forward = [&](bool device) {
      const auto of = [&](auto& twin) { return device ? twin.device() : twin.cpu(); };
      return RmsNormForward<BF16>{.rows = rows,
                                  .width = width,
                                  .x = of(x),
                                  .residual = added ? of(residual) : nullptr,
                                  .sum = added ? of(sum) : nullptr,
                                  .weight = of(weight),
                                  .out = of(out),
                                  .rstd = of(rstd)};
    };
    run(forward(false), forward(true));
    const std::string where = std::to_string(rows) + "x" + std::to_string(width) + ", seed " + std::to_string(seed);
    EXPECT_TRUE(sum.same_bits()) << where;
    EXPECT_LT(out.distance(), kOneRounding) << where;
    EXPECT_LT(rstd.distance(), kFloatSums) << where;
    const auto backward = [&](bool device) {
      const auto of = [&](auto& twin) { return device ? twin.device() : twin.cpu(); };
      return RmsNormBackward<BF16>{.rows = rows,
                                   .width = width,
                                   .x = added ? of(sum) : of(x),
                                   .weight = of(weight),
                                   .rstd = of(rstd),
                                   .d_out = of(d_out),
                                   .d_x = of(d_x),
                                   .accumulate_x = accumulate,
                                   .d_weight = of(d_weight),
                                   .accumulate_weight = accumulate};
    };
    if (width == 1) continue;
    run(backward(false), backward(true));
    EXPECT_LT(d_x.distance(), 2 * kOneRounding) << where;
    EXPECT_LT(d_weight.distance(), 10 * kFloatSums) << where;
  }
}

TEST_F(CudaTwin, norms_of_heads_agree) {
  for (int round = 0; round < rounds(); ++round) {
    const size_t rows = size(700, 60), kv = 1 + random.below(3), heads = kv * (1 + random.below(4)),
                 width = 1 + size(128, 70);
    const size_t stride = (heads + 2 * kv) * width, normed = heads + kv;
    auto qkv = bf16(rows * stride), kept = bf16(rows * normed * width), q = bf16(width), k = bf16(width);
    auto rstd = floats(rows * normed), d_q = floats(width), d_k = floats(width);
    const auto forward = [&](bool device) {
      const auto of = [&](auto& twin) { return device ? twin.device() : twin.cpu(); };
      return HeadNormForward<BF16>{rows, heads, kv, width, stride, of(qkv), of(kept), of(q), of(k), of(rstd)};
    };
    run(forward(false), forward(true));
    EXPECT_TRUE(kept.same_bits());
    EXPECT_LT(qkv.distance(), kOneRounding) << "seed " << seed;
    auto d_qkv = bf16(rows * stride);
    const auto backward = [&](bool device) {
      const auto of = [&](auto& twin) { return device ? twin.device() : twin.cpu(); };
      return HeadNormBackward<BF16>{rows,  heads, kv,       width,   stride,  of(d_qkv),     of(kept),
                                    of(q), of(k), of(rstd), of(d_q), of(d_k), round % 2 == 0};
    };
    run(backward(false), backward(true));
    EXPECT_LT(d_qkv.distance(), 2 * kOneRounding) << "seed " << seed;
    EXPECT_LT(d_q.distance(), 10 * kFloatSums) << "seed " << seed;
    EXPECT_LT(d_k.distance(), 10 * kFloatSums) << "seed " << seed;
  }
}

TEST_F(CudaTwin, rotation_agrees) {
  for (int round = 0; round < rounds(); ++round) {
    const size_t sequences = size(4, 2), length = size(300, 40), heads = 1 + random.below(5), half = size(64, 24);
    const size_t stride = heads * 2 * half + (round % 2 == 0 ? 16 : 3);
    auto x = bf16(sequences * length * stride);
    auto cosines = floats(length * half), sines = floats(length * half);
    const auto op = [&](bool device) {
      const auto of = [&](auto& twin) { return device ? twin.device() : twin.cpu(); };
      return Rope<BF16>{sequences, length, heads, 2 * half, stride, of(x), of(cosines), of(sines), round % 3 == 0};
    };
    run(op(false), op(true));
    EXPECT_LT(x.distance(), kOneRounding) << "seed " << seed;
  }
}

TEST_F(CudaTwin, activations_agree) {
  for (int round = 0; round < rounds(); ++round) {
    const size_t rows = size(300, 30), width = size(900, 90), elements = rows * width;
    auto x = bf16(elements, 6), out = bf16(elements), d_out = bf16(elements), d_x = bf16(elements);
    run(GeluForward<BF16>{elements, x.cpu(), out.cpu()}, GeluForward<BF16>{elements, x.device(), out.device()});
    EXPECT_LT(out.distance(), kOneRounding);
    run(GeluBackward<BF16>{elements, x.cpu(), d_out.cpu(), d_x.cpu()},
        GeluBackward<BF16>{elements, x.device(), d_out.device(), d_x.device()});
    EXPECT_LT(d_x.distance(), kOneRounding);
    auto gate_up = bf16(2 * elements, 6);
    run(SwiGluForward<BF16>{rows, width, gate_up.cpu(), out.cpu()},
        SwiGluForward<BF16>{rows, width, gate_up.device(), out.device()});
    EXPECT_LT(out.distance(), kOneRounding);
    // In place, as the model does it.
    run(SwiGluBackward<BF16>{rows, width, gate_up.cpu(), d_out.cpu(), gate_up.cpu()},
        SwiGluBackward<BF16>{rows, width, gate_up.device(), d_out.device(), gate_up.device()});
    EXPECT_LT(gate_up.distance(), kOneRounding) << rows << "x" << width << ", seed " << seed;
  }
}

TEST_F(CudaTwin, cross_entropy_agrees) {
  for (int round = 0; round < rounds(); ++round) {
    const size_t rows = size(400, 20), vocab = 2 + size(60000, 1500), length = 1 + random.below(20);
    const size_t used = round % 2 == 0 ? 0 : vocab - random.below(vocab / 2), first = random.below(30);
    auto token = tokens((first + rows) / length * (length + 1) + 2 * length + 2, used == 0 ? vocab : used);
    auto logits = bf16(rows * vocab, 8);
    auto losses = floats(rows);
    const auto op = [&](bool device, bool backward) {
      const auto of = [&](auto& twin) { return device ? twin.device() : twin.cpu(); };
      return CrossEntropy<BF16>{rows,   vocab, used,       of(logits), of(token), length + 1,
                                length, first, of(losses), backward,   0.5};
    };
    run(op(false, false), op(true, false));
    EXPECT_LT(losses.distance(), kFloatSums) << rows << "x" << vocab << ", seed " << seed;
    EXPECT_TRUE(logits.same_bits());
    run(op(false, true), op(true, true));
    EXPECT_LT(losses.distance(), kFloatSums) << rows << "x" << vocab << ", seed " << seed;
    EXPECT_LT(logits.distance(), kOneRounding) << rows << "x" << vocab << ", seed " << seed;
  }
}

TEST_F(CudaTwin, cross_entropy_of_a_shared_vocabulary_agrees) {
  for (int round = 0; round < rounds(); ++round) {
    const size_t rows = size(300, 12), vocab = 2 + size(30000, 600), ranks = 2 + random.below(3), length = rows;
    const size_t used = round % 3 == 0 ? 0 : vocab - random.below(vocab);
    auto token = tokens(length + 1, vocab * ranks);
    auto logits = bf16(rows * vocab, 8);
    auto losses = floats(rows);
    Twin<SoftmaxPart<float>> parts(backend, *stream, [&] {
      std::vector<SoftmaxPart<float>> others(ranks * rows, {2, 30, 0});
      for (size_t row = 0; row < rows; ++row) others[row].target = static_cast<float>(row) / 100;
      return others;
    }());
    const auto own = [&](bool device) {
      const auto of = [&](auto& twin) { return device ? twin.device() : twin.cpu(); };
      return CrossEntropyPart<BF16>{rows,      vocab,      used,   vocab,     of(logits),
                                    of(token), length + 1, length, /*row=*/0, of(parts) + rows};
    };
    run(own(false), own(true));
    EXPECT_TRUE(logits.same_bits());
    const auto finish = [&](bool device) {
      const auto of = [&](auto& twin) { return device ? twin.device() : twin.cpu(); };
      return CrossEntropy<BF16>{rows, vocab,      used, of(logits), of(token), length + 1, length,
                                0,    of(losses), true, 0.5,        of(parts), ranks,      vocab};
    };
    run(finish(false), finish(true));
    EXPECT_LT(losses.distance(), kFloatSums) << rows << "x" << vocab << ", seed " << seed;
    EXPECT_LT(logits.distance(), kOneRounding) << rows << "x" << vocab << ", seed " << seed;
  }
}

TEST_F(CudaTwin, sums_of_parts_agree_bit_for_bit) {
  for (int round = 0; round < rounds(); ++round) {
    const size_t rows = size(400, 40), width = size(1700, 90), count = 1 + random.below(4);
    auto parts = bf16(count * rows * width), out = bf16(rows * width), bias = bf16(width);
    const auto op = [&](bool device) {
      const auto of = [&](auto& twin) { return device ? twin.device() : twin.cpu(); };
      return SumParts<BF16>{rows, width, count, of(parts), of(out), round % 2 == 0 ? of(bias) : nullptr};
    };
    run(op(false), op(true));
    EXPECT_TRUE(out.same_bits()) << rows << "x" << width << ", seed " << seed;
  }
}

}  // namespace
}  // namespace pitcrew::trainer
