#pragma once

#include "trainer/model/small_gradients.hpp"

namespace pitcrew::trainer {

// A decoder's norms: LayerNorm (gpt2) or RMSNorm (llama) of the residual stream's own rows, and RMSNorm of query and
// key heads (qkNorm). Owned by a decoder, whose kernels, activations and small gradients outlive it.
template <typename T>
class DecoderNorms {
 public:
  using Pass = DecoderPass<T>;
  // `part`: what this tensor rank computes of the model `config`.
  DecoderNorms(const ModelConfig& config, const ModelConfig& part, uint32_t ranks, Kernels<T>& kernels,
               const Activations<T>& activations, SmallGradients<T>& small)
      : config_(config), part_(part), ranks_(ranks), kernels_(kernels), acts_(activations), small_(small) {}

  // out = norm(x), or sum = x + residual and out = norm(sum).
  void forward(const Pass& pass, const Weights& weights, const T* x, const T* residual, T* sum, T* out, Wide<T>* mean,
               Wide<T>* rstd);
  // Into Activations::d_stream; `accumulate`: added to it.
  void backward(const Pass& pass, const Weights& weights, const T* x, const Wide<T>* mean, const Wide<T>* rstd,
                const T* d_out, bool accumulate);
  void heads_forward(const Pass& pass, const Weights& q_norm, const Weights& k_norm, const BlockActivations<T>& act);
  // In place, in Activations::d_qkv.
  void heads_backward(const Pass& pass, const Weights& q_norm, const Weights& k_norm, const BlockActivations<T>& act);

 private:
  const ModelConfig& config_;
  const ModelConfig& part_;
  const uint32_t ranks_;
  Kernels<T>& kernels_;
  const Activations<T>& acts_;
  SmallGradients<T>& small_;
};

}  // namespace pitcrew::trainer
