#include "trainer/cuda/twin_fixture.hpp"
#include "trainer/model/model.hpp"

namespace pitcrew::trainer {
namespace {

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
