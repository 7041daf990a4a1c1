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
  size_t small = 0;  // of a norm: where its gradients lie in Activations::small, the bias' behind the weight's
};

// The model behind Model: blocks of norm, attention, norm, MLP around a residual stream. GPT-2 and Llama differ in
// norm, MLP, biases and positions, each decided in one place.
//
// Of tensor ranks each holds its part of every product: rows of qkv, up and head, columns of out and down, and rows of
// the embedding. The residual stream and its norms are done for own rows alone (sequence parallel): all ranks' rows are
// gathered before a product by rows, and every rank's part of a product by columns goes to the rows' owners, who add
// the parts in the order of the ranks.
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
    ModelUnits<T>* units = nullptr;  // where params and gradients are not all there
    size_t rows() const { return shape.predictions(); }
  };

  Decoder(const ModelConfig& config, const ModelConfig& part, LaneShape largest, Recompute recompute,
          Kernels<T>& kernels, Activations<T> activations, TensorGroup* tensor);
  // A gradient that tensor ranks add up.
  struct SmallGradient {
    size_t parameter = 0;  // its first element among the parameters
    size_t elements = 0;
    size_t small = 0;  // in Activations::small
  };
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
  void head_norm_backward(const Pass& pass, uint32_t layer);
  void block_backward(const Pass& pass, uint32_t layer);
  void head_loss(const Pass& pass, double* loss);
  void cross_entropy(const Pass& pass, size_t first, size_t rows);
  void embed_backward(const Pass& pass);

  size_t own_rows(const Pass& pass) const { return pass.rows() / place_.size; }
  // All ranks' rows of what each has its own of; `own` itself where there is one rank.
  const T* gathered(const Pass& pass, const T* own);
  // own = the sum of all ranks' parts of the own rows (+ bias); parts are what each has in Activations::partial.
  void add_parts(const Pass& pass, T* own, const T* bias);
  // The same for the gradients of what all ranks hold, of units [first, end).
  void add_small_gradients(const Pass& pass, uint32_t first, uint32_t end);
  T* partial_or(T* own) const { return tensor_ != nullptr ? acts_.partial : own; }
  // Where a small gradient is written.
  Wide<T>* small_gradient(const Pass& pass, size_t parameter, size_t small) const {
    return tensor_ != nullptr ? acts_.small + small : pass.gradients + parameter;
  }
  bool adds_small(const Pass& pass) const { return tensor_ == nullptr && pass.add; }

  // A layer whose rows are dealt, of own rows of x; and one whose columns are, into own rows of out.
  void linear_by_rows(const Pass& pass, const Weights& weights, const T* x, T* out, size_t out_width);
  void linear_by_columns(const Pass& pass, const Weights& weights, const T* x, size_t in, T* out);
  void linear_by_rows_backward(const Pass& pass, const Weights& weights, const T* x, const T* d_out, size_t out_width,
                               T* d_x);
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
  const ModelConfig part_;  // what this rank computes of it
  TensorGroup* const tensor_;
  const TensorPlace place_;
  const LaneShape largest_;
  const Recompute recompute_;
  Kernels<T>& kernels_;
  Activations<T> acts_;
  std::vector<Block> blocks_;
  std::vector<std::vector<SmallGradient>> small_;  // by unit, in the order of Activations::small; empty for one rank
  Weights final_norm_, head_;
  size_t embedding_ = 0, positions_ = 0;
};

}  // namespace pitcrew::trainer
