#include "trainer/model/decoder_norms.hpp"

namespace pitcrew::trainer {

template <typename T>
void DecoderNorms<T>::forward(const Pass& pass, const Weights& weights, const T* x, const T* residual, T* sum, T* out,
                              Wide<T>* mean, Wide<T>* rstd) {
  if (config_.kind == ModelKind::kGpt2) {
    kernels_.enqueue(pass.stream, LayerNormForward<T>{.rows = pass.rows() / ranks_,
                                                      .width = config_.width,
                                                      .x = x,
                                                      .residual = residual,
                                                      .sum = sum,
                                                      .weight = pass.params + weights.weight,
                                                      .bias = pass.params + weights.bias,
                                                      .out = out,
                                                      .mean = mean,
                                                      .rstd = rstd,
                                                      .epsilon = config_.norm_eps});
  } else {
    kernels_.enqueue(pass.stream, RmsNormForward<T>{.rows = pass.rows() / ranks_,
                                                    .width = config_.width,
                                                    .x = x,
                                                    .residual = residual,
                                                    .sum = sum,
                                                    .weight = pass.params + weights.weight,
                                                    .out = out,
                                                    .rstd = rstd,
                                                    .epsilon = config_.norm_eps});
  }
}

template <typename T>
void DecoderNorms<T>::backward(const Pass& pass, const Weights& weights, const T* x, const Wide<T>* mean,
                               const Wide<T>* rstd, const T* d_out, bool accumulate) {
  if (config_.kind == ModelKind::kGpt2) {
    kernels_.enqueue(pass.stream, LayerNormBackward<T>{.rows = pass.rows() / ranks_,
                                                       .width = config_.width,
                                                       .x = x,
                                                       .weight = pass.params + weights.weight,
                                                       .mean = mean,
                                                       .rstd = rstd,
                                                       .d_out = d_out,
                                                       .d_x = acts_.d_stream,
                                                       .accumulate_x = accumulate,
                                                       .d_weight = small_.gain(pass, weights),
                                                       .d_bias = small_.bias(pass, weights, config_.width),
                                                       .accumulate_weight = small_.adds(pass)});
  } else {
    kernels_.enqueue(pass.stream, RmsNormBackward<T>{.rows = pass.rows() / ranks_,
                                                     .width = config_.width,
                                                     .x = x,
                                                     .weight = pass.params + weights.weight,
                                                     .rstd = rstd,
                                                     .d_out = d_out,
                                                     .d_x = acts_.d_stream,
                                                     .accumulate_x = accumulate,
                                                     .d_weight = small_.gain(pass, weights),
                                                     .accumulate_weight = small_.adds(pass)});
  }
}

template <typename T>
void DecoderNorms<T>::heads_forward(const Pass& pass, const Weights& q_norm, const Weights& k_norm,
                                    const BlockActivations<T>& act) {
  kernels_.enqueue(pass.stream, HeadNormForward<T>{.rows = pass.rows(),
                                                   .heads = part_.heads,
                                                   .kv_heads = part_.kv_heads,
                                                   .head_width = config_.head_width(),
                                                   .row_stride = part_.qkv_width(),
                                                   .qkv = act.qkv,
                                                   .kept = act.heads,
                                                   .q_weight = pass.params + q_norm.weight,
                                                   .k_weight = pass.params + k_norm.weight,
                                                   .rstd = act.heads_rstd,
                                                   .epsilon = config_.norm_eps});
}

template <typename T>
void DecoderNorms<T>::heads_backward(const Pass& pass, const Weights& q_norm, const Weights& k_norm,
                                     const BlockActivations<T>& act) {
  kernels_.enqueue(pass.stream, HeadNormBackward<T>{.rows = pass.rows(),
                                                    .heads = part_.heads,
                                                    .kv_heads = part_.kv_heads,
                                                    .head_width = config_.head_width(),
                                                    .row_stride = part_.qkv_width(),
                                                    .d_qkv = acts_.d_qkv,
                                                    .kept = act.heads,
                                                    .q_weight = pass.params + q_norm.weight,
                                                    .k_weight = pass.params + k_norm.weight,
                                                    .rstd = act.heads_rstd,
                                                    .d_q_weight = small_.gain(pass, q_norm),
                                                    .d_k_weight = small_.gain(pass, k_norm),
                                                    .accumulate_weight = small_.adds(pass)});
}

template class DecoderNorms<float>;
template class DecoderNorms<double>;
template class DecoderNorms<BF16>;

}  // namespace pitcrew::trainer
