#pragma once

#include <vector>

#include "trainer/model/activations.hpp"
#include "trainer/model/model.hpp"

namespace pitcrew::trainer {

// One linear layer or norm within an arena of parameters (or gradients).
struct Weights {
  size_t weight = 0;  // elements from the arena's start
  size_t bias = 0;
  bool has_bias = false;
};

// The model behind Model: blocks of norm, attention, norm, MLP around a residual stream. GPT-2 and Llama differ in
// norm, MLP, biases and positions, each decided in one place.
template <typename T>
class Decoder : public Model<T> {
 public:
  static Result<std::unique_ptr<Model<T>>> create(const ModelConfig& config, LaneShape largest, Device& device,
                                                  Kernels<T>& kernels, Recompute recompute);

  const ModelConfig& config() const override { return config_; }
  void forward_backward(Stream& stream, const T* params, const int32_t* tokens, LaneShape shape, Wide<T>* gradients,
                        Gradients mode, double loss_scale, double* loss) override;
  void forward(Stream& stream, const T* params, const int32_t* tokens, LaneShape shape, double* loss) override;
  void logits(Stream& stream, const T* params, const int32_t* tokens, uint32_t count, T* logits) override;
  uint64_t activation_bytes() const override { return acts_.arena.bytes(); }

 private:
  struct Block {
    Weights norm1, qkv, q_norm, k_norm, out, norm2, up, down;
  };
  // One call's operands.
  struct Pass {
    Stream& stream;
    const T* params;
    const int32_t* tokens;
    size_t token_stride;
    LaneShape shape;
    Wide<T>* gradients = nullptr;
    bool add = false;
    double loss_scale = 0;
    size_t rows() const { return shape.predictions(); }
  };

  Decoder(const ModelConfig& config, LaneShape largest, Recompute recompute, Kernels<T>& kernels,
          Activations<T> activations);
  void check(LaneShape shape) const;

  void embed(const Pass& pass);
  void blocks_forward(const Pass& pass);
  void block_forward(const Pass& pass, uint32_t layer);
  // From the block's normed input to what it adds to the stream in the end; without the last product where the block is
  // only computed again.
  void block_body(const Pass& pass, uint32_t layer, bool again);
  void activation_forward(const Pass& pass, uint32_t layer);
  void head_norm_backward(const Pass& pass, uint32_t layer);
  void block_backward(const Pass& pass, uint32_t layer);
  void head_loss(const Pass& pass, double* loss);
  void embed_backward(const Pass& pass);

  // out = x · weightᵀ (+ bias)
  void linear(const Pass& pass, const Weights& weights, const T* x, size_t in, T* out, size_t out_width, size_t rows);
  // d_x = d_out · weight; the weight's gradient d_outᵀ · x, and the bias's.
  void linear_backward(const Pass& pass, const Weights& weights, const T* x, size_t in, const T* d_out,
                       size_t out_width, T* d_x);
  void norm(const Pass& pass, const Weights& weights, const T* x, const T* residual, T* sum, T* out, Wide<T>* mean,
            Wide<T>* rstd);
  void norm_backward(const Pass& pass, const Weights& weights, const T* x, const Wide<T>* mean, const Wide<T>* rstd,
                     const T* d_out, bool accumulate);
  void rope(const Pass& pass, T* qkv, bool inverse);

  const ModelConfig config_;
  const LaneShape largest_;
  const Recompute recompute_;
  Kernels<T>& kernels_;
  Activations<T> acts_;
  std::vector<Block> blocks_;
  Weights final_norm_, head_;
  size_t embedding_ = 0, positions_ = 0;
};

}  // namespace pitcrew::trainer
