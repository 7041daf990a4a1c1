#pragma once

#include <vector>

#include "trainer/model/decoder_norms.hpp"
#include "trainer/model/tensor_products.hpp"

namespace pitcrew::trainer {

// The model behind Model: blocks of norm, attention, norm, MLP around a residual stream. GPT-2 and Llama differ in
// norm, MLP, biases and positions, each decided in one place.
//
// Of tensor ranks each holds its part of every product: rows of qkv, up and head, columns of out and down, and rows of
// the embedding. The residual stream and its norms are done for own rows alone (sequence parallel). What that takes is
// in TensorProducts and SmallGradients.
template <typename T>
class Decoder : public Model<T> {
 public:
  static Result<std::unique_ptr<Model<T>>> create(const ModelConfig& config, LaneShape largest, Device& device,
                                                  Kernels<T>& kernels, Recompute recompute, TensorGroup* tensor);

  const ModelConfig& config() const override { return config_; }
  void forward_backward(Stream& stream, const T* params, const int32_t* tokens, LaneShape shape, Wide<T>* gradients,
                        Gradients mode, double loss_scale, double* loss) override;
  void forward(Stream& stream, const T* params, const int32_t* tokens, LaneShape shape, double* loss) override;
  void forward_backward(Stream& stream, ModelUnits<T>& units, const int32_t* tokens, LaneShape shape,
                        double* loss) override;
  void forward(Stream& stream, ModelUnits<T>& units, const int32_t* tokens, LaneShape shape, double* loss) override;
  void logits(Stream& stream, const T* params, const int32_t* tokens, uint32_t count, T* logits) override;
  uint64_t activation_bytes() const override { return acts_.arena.bytes(); }

 private:
  struct Block {
    Weights norm1, qkv, q_norm, k_norm, out, norm2, up, down;
  };
  using Pass = DecoderPass<T>;

  Decoder(const ModelConfig& config, const ModelConfig& part, LaneShape largest, Recompute recompute,
          Kernels<T>& kernels, Activations<T> activations, TensorGroup* tensor);
  void number_small_gradients();
  void check(LaneShape shape) const;

  // The pass with the unit's weights there, and a place for its gradient; and when these were used.
  Pass enter(const Pass& pass, uint32_t unit, bool backward) const;
  void leave(const Pass& pass, uint32_t unit) const;
  void leave_backward(const Pass& entered, uint32_t unit);
  uint32_t last_unit() const { return config_.layers + 1; }
  uint32_t head_unit() const { return config_.tie_embeddings ? 0 : last_unit(); }
  void backward(const Pass& pass, double* loss);

  void embed(const Pass& pass);
  void blocks_forward(const Pass& pass);
  void block_forward(const Pass& pass, uint32_t layer);
  // From the block's normed input to what it adds to the stream in the end; without the last product where the block is
  // only computed again.
  void block_body(const Pass& pass, uint32_t layer, bool again);
  void activation_forward(const Pass& pass, uint32_t layer);
  void block_backward(const Pass& pass, uint32_t layer);
  void head_loss(const Pass& pass, double* loss);
  void cross_entropy(const Pass& pass, size_t first, size_t rows);
  void embed_backward(const Pass& pass);

  void rope(const Pass& pass, T* qkv, bool inverse);

  const ModelConfig config_;
  const ModelConfig part_;  // what this rank computes of it
  TensorGroup* const tensor_;
  const TensorPlace place_;
  const LaneShape largest_;
  const Recompute recompute_;
  Kernels<T>& kernels_;
  Activations<T> acts_;
  TensorProducts<T> products_;
  SmallGradients<T> small_;
  DecoderNorms<T> norms_;
  std::vector<Block> blocks_;
  Weights final_norm_, head_;
  size_t embedding_ = 0, positions_ = 0;
};

}  // namespace pitcrew::trainer
