// Each of the GPU's kernels beside its CPU twin on random shapes, odd ones included. With a GPU
// (pitcrew-cuda-twin-test), or with the kernels' threads as fibers of the CPU (pitcrew_trainer_cuda_emulated_test). A
// failing seed is printed; PITCREW_TEST_SEED runs it again.
#include <bit>
#include <cmath>
#include <cstring>

#include <gtest/gtest.h>

#include "lib/base/digest.hpp"
#include "lib/base/random.hpp"
#include "trainer/cuda/twin_backend.hpp"
#include "trainer/device/cpu_device.hpp"
#include "trainer/kernels/cpu_kernels.hpp"
#include "trainer/model/model.hpp"

namespace pitcrew::trainer {
namespace {

// One rounding to BF16 is 2⁻⁹ of a value at most; norm-wise over many it is 2⁻⁹/√3. Both sides round inputs and outputs
// alike, so results differ by a rounding here and there: at most about 2⁻⁹.
constexpr double kOneRounding = 2e-3;
// Float sums in another order.
constexpr double kFloatSums = 2e-5;
// Attention also rounds the weights, and their gradients, between its two products.
constexpr double kAttention = 6e-3;

// Memory that both sides have alike, and what each made of it.
template <typename T>
class Twin {
 public:
  Twin(TwinBackend& backend, Stream& stream, std::vector<T> values)
      : backend_(backend), stream_(stream), cpu_(std::move(values)) {
    auto buffer = backend.device->allocate("twin", std::max<size_t>(1, cpu_.size()) * sizeof(T));
    EXPECT_TRUE(buffer.ok());
    device_ = std::move(*buffer);
    stream_.copy(device_.data(), cpu_.data(), cpu_.size() * sizeof(T));
    stream_.synchronize();
  }
  // Another of the same values as the CPU's.
  Twin copy() const { return Twin(backend_, stream_, cpu_); }
  T* cpu() { return cpu_.data(); }
  T* device() { return device_.as<T>(); }
  const std::vector<T>& expected() const { return cpu_; }
  std::vector<T> found() const {
    std::vector<T> values(cpu_.size());
    stream_.copy(values.data(), device_.data(), values.size() * sizeof(T));
    stream_.synchronize();
    return values;
  }
  bool same_bits() const { return std::memcmp(found().data(), cpu_.data(), cpu_.size() * sizeof(T)) == 0; }
  // The norm of the difference, of the expected values' norm.
  double distance() const {
    double difference = 0, norm = 0;
    const std::vector<T> values = found();
    for (size_t i = 0; i < values.size(); ++i) {
      const double expected = static_cast<float>(cpu_[i]), value = static_cast<float>(values[i]);
      difference += (value - expected) * (value - expected);
      norm += expected * expected;
    }
    return std::sqrt(difference / (norm + 1e-30));
  }

 private:
  TwinBackend& backend_;
  Stream& stream_;
  std::vector<T> cpu_;
  Buffer device_;
};

class CudaTwin : public testing::Test {
 protected:
  void SetUp() override {
    if (!backend.why_not.empty()) GTEST_SKIP() << backend.why_not;
    const char* asked = std::getenv("PITCREW_TEST_SEED");
    seed = asked != nullptr ? std::strtoull(asked, nullptr, 10) : 20;
    random = Random(seed);
    stream = backend.device->create_stream("compute");
    cpu_stream = cpu.create_stream("compute");
  }
  int rounds() const { return backend.slow ? 6 : 40; }
  // Up to `limit`, where emulation is slow up to less; every third time a multiple of 8.
  size_t size(size_t limit, size_t slow_limit) {
    const size_t any = 1 + random.below(backend.slow ? slow_limit : limit);
    return random.below(3) == 0 ? (any + 7) / 8 * 8 : any;
  }
  Twin<BF16> bf16(size_t count, double scale = 1) {
    std::vector<BF16> values(count);
    for (BF16& value : values) value = BF16(static_cast<float>(scale * (2 * random.uniform() - 1)));
    return {backend, *stream, std::move(values)};
  }
  Twin<float> floats(size_t count, double scale = 1, double middle = 0) {
    std::vector<float> values(count);
    for (float& value : values) value = static_cast<float>(middle + scale * (2 * random.uniform() - 1));
    return {backend, *stream, std::move(values)};
  }
  Twin<int32_t> tokens(size_t count, size_t vocab) {
    std::vector<int32_t> values(count);
    for (int32_t& value : values) value = static_cast<int32_t>(random.below(vocab));
    return {backend, *stream, std::move(values)};
  }
  // The same operation on both sides.
  template <typename Op>
  void run(const Op& on_cpu, const Op& on_device) {
    cpu_kernels->enqueue(*cpu_stream, on_cpu);
    backend.kernels->enqueue(*stream, on_device);
    cpu_stream->synchronize();
    stream->synchronize();
  }

  TwinBackend& backend = twin_backend();
  uint64_t seed = 0;
  Random random{0};
  CpuDevice cpu{{.threads = 2}};
  std::unique_ptr<Kernels<BF16>> cpu_kernels = create_cpu_kernels<BF16>(cpu);
  std::unique_ptr<Stream> stream, cpu_stream;
};

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

class CudaTwinAttention : public CudaTwin {
 protected:
  // The operands of one shape, forward and backward.
  struct Operands {
    Operands(CudaTwinAttention& test, const AttentionShape& of)
        : shape(of),
          qkv(test.bf16(row_count() * stride(), 2)),
          out(test.bf16(row_count() * of.heads * of.head_width)),
          d_out(test.bf16(row_count() * of.heads * of.head_width)),
          log_sum(test.floats(row_count() * of.heads)),
          d_qkv(test.bf16(row_count() * stride())),
          where(std::to_string(of.sequences) + "x" + std::to_string(of.length) + ", " + std::to_string(of.heads) + "/" +
                std::to_string(of.kv_heads) + " heads of " + std::to_string(of.head_width) + ", seed " +
                std::to_string(test.seed)) {}

    AttentionForward<BF16> forward(bool device) {
      const auto of = [&](auto& twin) { return device ? twin.device() : twin.cpu(); };
      return {shape.sequences,  shape.length, shape.heads, shape.kv_heads,
              shape.head_width, of(qkv),      of(out),     of(log_sum)};
    }
    AttentionBackward<BF16> backward(bool device) {
      const auto of = [&](auto& twin) { return device ? twin.device() : twin.cpu(); };
      return {shape.sequences, shape.length, shape.heads, shape.kv_heads, shape.head_width,
              of(qkv),         of(out),      of(log_sum), of(d_out),      of(d_qkv)};
    }
    size_t row_count() const { return shape.sequences * shape.length; }
    size_t stride() const { return (shape.heads + 2 * shape.kv_heads) * shape.head_width; }

    const AttentionShape shape;
    Twin<BF16> qkv, out, d_out;
    Twin<float> log_sum;
    Twin<BF16> d_qkv;
    const std::string where;
  };

  void run_forward(Operands& all) { run(all.forward(false), all.forward(true)); }
  void run_backward(Operands& all) { run(all.backward(false), all.backward(true)); }
  // Both passes agree with the CPU's, and the backward's bits are the same again. Returns these.
  auto expect_agrees(Operands& all) {
    run_forward(all);
    EXPECT_LT(all.out.distance(), kAttention) << all.where;
    EXPECT_LT(all.log_sum.distance(), kFloatSums) << all.where;
    run_backward(all);
    EXPECT_LT(all.d_qkv.distance(), 2 * kAttention) << all.where;
    const auto first = all.d_qkv.found();
    run_backward(all);
    EXPECT_EQ(all.d_qkv.found(), first) << "another run gives other bits: " << all.where;
    return first;
  }
};

TEST_F(CudaTwinAttention, agrees_forward_and_backward) {
  for (int round = 0; round < rounds(); ++round) {
    const size_t kv = 1 + random.below(2), heads = kv * (1 + random.below(3)), sequences = 1 + random.below(2);
    const size_t widths[] = {64, 128, 8, 80, 16, 96}, width = widths[round % 6];
    const size_t length = round == 0 ? 128 : size(700, 100);
    Operands all(*this, {sequences, length, heads, kv, width});
    expect_agrees(all);
  }
}

// cuDNN's attention beside the own kernels and the CPU's, and with itself: the deterministic backward gives the same
// bits.
TEST_F(CudaTwinAttention, by_cudnn_agrees) {
  if (backend.attention == nullptr) GTEST_SKIP() << "these kernels are emulated: cuDNN needs a GPU";
  const AttentionShape shapes[] = {{2, 512, 4, 4, 64}, {1, 384, 6, 2, 128}, {3, 300, 8, 2, 64}};
  for (const AttentionShape& shape : shapes) {
    Operands all(*this, shape);
    run_forward(all);
    run_backward(all);
    const auto own = all.d_qkv.found();
    const auto ready = backend.attention->use_cudnn(shape, cudnn_workspace_bytes(shape));
    if (!ready) GTEST_SKIP() << ready.error().message;
    EXPECT_NE(expect_agrees(all), own) << "cuDNN was not used: " << all.where;
    backend.attention->use_own();
    run_backward(all);
    EXPECT_EQ(all.d_qkv.found(), own) << "the own kernels are not back: " << all.where;
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

TEST_F(CudaTwin, sums_norms_and_adamw_agree) {
  for (int round = 0; round < rounds(); ++round) {
    const size_t elements = size(3'000'000, 70'000);
    auto params = floats(elements), m = floats(elements, 0.1), v = floats(elements, 0.1, 0.1), g = floats(elements, 3);
    auto weights = bf16(elements);
    Twin<double> sum(backend, *stream, {0.0}), squares(backend, *stream, {0.0});
    Twin<GradientSummary> summary(backend, *stream, {GradientSummary{}});
    auto other = floats(elements);
    run(Add<float>{elements, g.cpu(), other.cpu()}, Add<float>{elements, g.device(), other.device()});
    EXPECT_TRUE(g.same_bits());
    run(Sum<float>{elements, g.cpu(), sum.cpu()}, Sum<float>{elements, g.device(), sum.device()});
    EXPECT_NEAR(sum.found()[0], sum.expected()[0], 1e-9 * static_cast<double>(elements));
    run(SquareSum<float>{elements, g.cpu(), squares.cpu()}, SquareSum<float>{elements, g.device(), squares.device()});
    EXPECT_NEAR(squares.found()[0], squares.expected()[0], 1e-9 * squares.expected()[0]);
    run(SquareSum<float>{elements, g.cpu(), squares.cpu(), true},
        SquareSum<float>{elements, g.device(), squares.device(), true});
    EXPECT_NEAR(squares.found()[0], squares.expected()[0], 1e-9 * squares.expected()[0]);
    run(Summarize{squares.cpu(), 10, 1, summary.cpu()}, Summarize{squares.device(), 10, 1, summary.device()});
    EXPECT_EQ(summary.found()[0].finite, 1u);
    EXPECT_NEAR(summary.found()[0].scale, summary.expected()[0].scale, 1e-12);
    Twin<BF16> half(backend, *stream, std::vector<BF16>(elements));
    Twin<uint16_t> remainders(backend, *stream, std::vector<uint16_t>(elements));
    auto half_m = m.copy(), half_v = v.copy(), whole = floats(elements);
    run(SplitMasters{elements, params.cpu(), half.cpu(), remainders.cpu()},
        SplitMasters{elements, params.device(), half.device(), remainders.device()});
    EXPECT_TRUE(half.same_bits() && remainders.same_bits());
    const auto op = [&](bool device) {
      const auto of = [&](auto& twin) { return device ? twin.device() : twin.cpu(); };
      return AdamW<BF16>{elements, of(params), of(m), of(v), of(g), of(weights),        of(summary),
                         0.01,     0.9,        0.95,  1e-8,  0.1,   uint64_t(round + 1)};
    };
    run(op(false), op(true));
    EXPECT_LT(params.distance(), 1e-6) << "seed " << seed;
    EXPECT_LT(m.distance(), 1e-6) << "seed " << seed;
    EXPECT_LT(v.distance(), 1e-6) << "seed " << seed;
    EXPECT_LT(weights.distance(), 1e-4) << "seed " << seed;
    const auto halves = [&](bool device) {
      const auto of = [&](auto& twin) { return device ? twin.device() : twin.cpu(); };
      AdamW<BF16> same = op(device);
      same.params = nullptr, same.weights = of(half), same.remainders = of(remainders);
      same.m = of(half_m), same.v = of(half_v);
      return same;
    };
    run(halves(false), halves(true));
    run(JoinMasters{elements, half.cpu(), remainders.cpu(), whole.cpu()},
        JoinMasters{elements, half.device(), remainders.device(), whole.device()});
    // Both forms of masters give the same bits, on either device.
    EXPECT_EQ(whole.found(), params.found()) << "seed " << seed;
    EXPECT_EQ(whole.expected(), params.expected()) << "seed " << seed;
    EXPECT_EQ(half.found(), weights.found());
    EXPECT_EQ(half_m.found(), m.found());
    EXPECT_EQ(half_v.found(), v.found());
    run(Cast<BF16>{elements, other.cpu(), weights.cpu()}, Cast<BF16>{elements, other.device(), weights.device()});
    EXPECT_TRUE(weights.same_bits());
  }
}

TEST_F(CudaTwin, every_kind_of_master_comes_back_from_its_halves) {
  std::vector<uint32_t> words;
  // Every low half that rounding turns on, under upper halves of both parities, signs, exponents and specials.
  for (const uint32_t upper :
       {0x0000u, 0x0001u, 0x3f80u, 0x3f81u, 0x7f7fu, 0x7f80u, 0x8000u, 0xbf80u, 0xff7fu, 0xff80u})
    for (const uint32_t lower : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu})
      if (upper % 0x8000 < 0x7f80 || lower == 0) words.push_back(upper << 16 | lower);
  while (words.size() % 8 != 0) words.push_back(0x40490fdbu);
  std::vector<float> masters(words.size());
  std::memcpy(masters.data(), words.data(), words.size() * 4);
  const size_t n = masters.size();
  Twin<float> from(backend, *stream, masters), back(backend, *stream, std::vector<float>(n));
  Twin<BF16> weights(backend, *stream, std::vector<BF16>(n));
  Twin<uint16_t> remainders(backend, *stream, std::vector<uint16_t>(n));
  run(SplitMasters{n, from.cpu(), weights.cpu(), remainders.cpu()},
      SplitMasters{n, from.device(), weights.device(), remainders.device()});
  run(JoinMasters{n, weights.cpu(), remainders.cpu(), back.cpu()},
      JoinMasters{n, weights.device(), remainders.device(), back.device()});
  EXPECT_TRUE(weights.same_bits() && remainders.same_bits() && back.same_bits());
  EXPECT_EQ(std::memcmp(back.cpu(), masters.data(), n * 4), 0);
  for (const uint32_t nan : {0x7f800001u, 0x7fffffffu, 0xffffffffu}) {
    const MasterHalves halves = split_master(std::bit_cast<float>(nan));
    EXPECT_TRUE(std::isnan(static_cast<float>(halves.weight)));
    EXPECT_TRUE(std::isnan(join_master(halves)));
  }
}

TEST_F(CudaTwin, nothing_changes_where_the_gradient_is_not_finite) {
  auto params = floats(1000), m = floats(1000), v = floats(1000), g = floats(1000);
  auto weights = bf16(1000);
  Twin<double> squares(backend, *stream, {NAN});
  Twin<GradientSummary> summary(backend, *stream, {GradientSummary{}});
  backend.kernels->enqueue(*stream, Summarize{squares.device(), 10, 1, summary.device()});
  backend.kernels->enqueue(*stream, AdamW<BF16>{1000, params.device(), m.device(), v.device(), g.device(),
                                                weights.device(), summary.device(), 0.01, 0.9, 0.95, 1e-8, 0.1, 1});
  stream->synchronize();
  EXPECT_EQ(summary.found()[0].finite, 0u);
  // Nor where its norm is above what is believed.
  Twin<double> large(backend, *stream, {400.0});
  backend.kernels->enqueue(*stream, Summarize{large.device(), 10, 1, summary.device(), 1.9});
  backend.kernels->enqueue(*stream, AdamW<BF16>{1000, params.device(), m.device(), v.device(), g.device(),
                                                weights.device(), summary.device(), 0.01, 0.9, 0.95, 1e-8, 0.1, 1});
  stream->synchronize();
  EXPECT_EQ(summary.found()[0].finite, 0u);
  EXPECT_TRUE(params.same_bits() && m.same_bits() && v.same_bits() && weights.same_bits());
}

TEST_F(CudaTwin, digests_are_those_of_the_cpu_for_every_length) {
  std::vector<size_t> sizes;
  for (size_t i = 1; i <= 300; ++i) sizes.push_back(i);
  for (const size_t more : {511, 512, 1023, 1024, 1025, 1088, 2047, 2048, 2049, 4096, 65536, 65600})
    sizes.push_back(more);
  for (int round = 0; round < rounds(); ++round) sizes.push_back(1 + random.below(100'000));
  Twin<uint8_t> data(backend, *stream, [&] {
    std::vector<uint8_t> bytes(100'000);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.below(256));
    return bytes;
  }());
  for (const size_t bytes : sizes) {
    for (const size_t chunk : {size_t{1} << 20, size_t{4096}}) {
      const size_t count = Digest{.bytes = bytes, .chunk = chunk}.count();
      Twin<uint64_t> digests(backend, *stream, std::vector<uint64_t>(count));
      run(Digest{data.cpu(), bytes, chunk, digests.cpu()}, Digest{data.device(), bytes, chunk, digests.device()});
      ASSERT_TRUE(digests.same_bits()) << bytes << " bytes in chunks of " << chunk;
      EXPECT_EQ(digests.expected()[0], xxh3(data.cpu(), std::min(chunk, bytes)));
    }
  }
}

TEST_F(CudaTwin, digests_of_a_list_are_those_of_each_range_whole_or_in_halves) {
  const size_t most = DigestList::kChunk / 4 + 3000;
  auto masters = floats(most);
  Twin<BF16> weights(backend, *stream, std::vector<BF16>(most));
  Twin<uint16_t> remainders(backend, *stream, std::vector<uint16_t>(most));
  run(SplitMasters{most, masters.cpu(), weights.cpu(), remainders.cpu()},
      SplitMasters{most, masters.device(), weights.device(), remainders.device()});
  std::vector<size_t> elements = {1, 2, 4, 5, 15, 32, 33, 60, 61, 64, 300, 1024, 16000, most};
  std::vector<DigestRange> on_cpu, on_device;
  std::vector<uint64_t> expected;
  for (const size_t count : elements) {
    for (const bool halves : {false, true}) {
      const uint64_t first = expected.size();
      const size_t from = halves ? 16 * random.below(2) : 0;
      const size_t n = std::min(count, most - from);
      on_cpu.push_back({weights.cpu() + from, remainders.cpu() + from, n * 4, first});
      on_device.push_back({weights.device() + from, remainders.device() + from, n * 4, first});
      if (!halves) on_cpu.back() = {masters.cpu(), nullptr, n * 4, first};
      if (!halves) on_device.back() = {masters.device(), nullptr, n * 4, first};
      const auto* bytes = reinterpret_cast<const std::byte*>(masters.cpu() + from);
      for (size_t at = 0; at < n * 4; at += DigestList::kChunk)
        expected.push_back(xxh3(bytes + at, std::min(DigestList::kChunk, n * 4 - at)));
    }
  }
  Twin<DigestRange> table(backend, *stream, on_device);
  Twin<uint64_t> digests(backend, *stream, std::vector<uint64_t>(expected.size()));
  run(DigestList{on_cpu.data(), on_cpu.size(), expected.size(), digests.cpu()},
      DigestList{table.device(), on_device.size(), expected.size(), digests.device()});
  EXPECT_EQ(digests.expected(), expected);
  EXPECT_EQ(digests.found(), expected) << "seed " << seed;
}

// One step of a whole model: forward, backward, norm, AdamW, from the same weights.
class CudaTwinStep : public CudaTwin {
 protected:
  struct Side {
    ModelState<BF16> state;
    Arena gradients;
    std::unique_ptr<Model<BF16>> model;
    Buffer tokens, loss, squares, summary;
  };
  static Side make(const ModelConfig& config, LaneShape shape, Device& device, Kernels<BF16>& kernels, Stream& stream) {
    Side side{std::move(*ModelState<BF16>::create(config, device)), {}, {}, {}, {}, {}, {}};
    side.gradients = std::move(*side.state.create_gradients(device, "gradients"));
    side.model = std::move(*Model<BF16>::create(config, shape, device, kernels));
    side.tokens = std::move(*device.allocate("tokens", 4096));
    side.loss = std::move(*device.allocate("loss", 8));
    side.squares = std::move(*device.allocate("squares", 8));
    side.summary = std::move(*device.allocate("summary", sizeof(GradientSummary)));
    side.state.init(kernels, stream, 3);
    return side;
  }
  static std::pair<double, std::vector<float>> step(Side& side, LaneShape shape, const std::vector<int32_t>& tokens,
                                                    Kernels<BF16>& kernels, Stream& stream, uint64_t number) {
    stream.copy(side.tokens.data(), tokens.data(), tokens.size() * sizeof(int32_t));
    side.model->forward_backward(stream, side.state.weights(), side.tokens.as<int32_t>(), shape,
                                 side.gradients.as<float>(), Gradients::kOverwrite, 1, side.loss.as<double>());
    kernels.enqueue(
        stream, SquareSum<float>{side.state.flat_elements(), side.gradients.as<float>(), side.squares.as<double>()});
    kernels.enqueue(stream, Summarize{side.squares.as<double>(), static_cast<double>(shape.predictions()), 1,
                                      side.summary.as<GradientSummary>()});
    side.state.adamw(kernels, stream, side.gradients.as<float>(), side.summary.as<GradientSummary>(), {}, number);
    double loss = 0;
    std::vector<float> gradients(side.state.flat_elements());
    stream.copy(&loss, side.loss.data(), sizeof loss);
    stream.copy(gradients.data(), side.gradients.data(), gradients.size() * sizeof(float));
    stream.synchronize();
    return {loss, gradients};
  }
};

TEST_F(CudaTwinStep, two_steps_of_each_kind_of_model_agree_and_repeat_bit_for_bit) {
  ModelConfig llama{.layers = 2, .width = 48, .heads = 4, .kv_heads = 2, .mlp = 72, .vocab = 90, .context = 70};
  llama.own_head_width = 16;
  llama.qk_norm = true;
  llama.vocab_used = 83;
  const ModelConfig gpt2{.kind = ModelKind::kGpt2,
                         .layers = 2,
                         .width = 40,
                         .heads = 5,
                         .kv_heads = 5,
                         .mlp = 100,
                         .vocab = 77,
                         .context = 70,
                         .tie_embeddings = true};
  const LaneShape shape = backend.slow ? LaneShape{2, 11} : LaneShape{2, 66};
  for (const ModelConfig& config : {llama, gpt2}) {
    std::vector<int32_t> token(shape.sequences * (shape.tokens + size_t{1}));
    for (int32_t& value : token) value = static_cast<int32_t>(random.below(config.tokens()));
    Side on_cpu = make(config, shape, cpu, *cpu_kernels, *cpu_stream);
    Side on_device = make(config, shape, *backend.device, *backend.kernels, *stream);
    Side again = make(config, shape, *backend.device, *backend.kernels, *stream);
    for (uint64_t number = 1; number <= 2; ++number) {
      const auto [expected_loss, expected] = step(on_cpu, shape, token, *cpu_kernels, *cpu_stream, number);
      const auto [loss, gradients] = step(on_device, shape, token, *backend.kernels, *stream, number);
      EXPECT_NEAR(loss, expected_loss, 2e-3 * expected_loss) << "seed " << seed;
      double difference = 0, norm = 0;
      for (size_t i = 0; i < expected.size(); ++i) {
        difference += std::pow(double{gradients[i]} - expected[i], 2);
        norm += std::pow(double{expected[i]}, 2);
      }
      // Roundings add up over some twenty operations in a row.
      EXPECT_LT(std::sqrt(difference / norm), 2e-2) << "seed " << seed;
      const auto [same_loss, same] = step(again, shape, token, *backend.kernels, *stream, number);
      EXPECT_EQ(loss, same_loss);
      EXPECT_EQ(gradients, same);
    }
  }
}

}  // namespace
}  // namespace pitcrew::trainer
