#pragma once

#include "trainer/model/model.hpp"

namespace pitcrew::trainer {

// One linear layer or norm within an arena of parameters (or gradients).
struct Weights {
  size_t weight = 0;  // elements from the arena's start
  size_t bias = 0;
  bool has_bias = false;
  size_t small = 0;  // of a norm: where its gradients lie in Activations::small, the bias' behind the weight's
};

// The operands of one call of a Decoder.
template <typename T>
struct DecoderPass {
  Stream& stream;
  const T* params;
  const int32_t* tokens;
  size_t token_stride;
  LaneShape shape;
  Wide<T>* gradients = nullptr;
  bool add = false;  // to what gradients were
  double loss_scale = 0;
  ModelUnits<T>* units = nullptr;  // where params and gradients are not all there
  size_t rows() const { return shape.predictions(); }
};

}  // namespace pitcrew::trainer
