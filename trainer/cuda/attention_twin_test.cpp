#include "trainer/cuda/twin_fixture.hpp"

namespace pitcrew::trainer {
namespace {

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

}  // namespace
}  // namespace pitcrew::trainer
