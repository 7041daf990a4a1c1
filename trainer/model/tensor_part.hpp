#pragma once

#include <cstdint>

#include "lib/base/result.hpp"
#include "trainer/kernels/embedding.hpp"
#include "trainer/model/config.hpp"
#include "trainer/tensor/cut.hpp"

namespace pitcrew::trainer {

// The part of a model that one of `tensor` ranks computes: heads, key heads and the MLP's width divided, of the
// vocabulary and of gpt2's positions ceil(rows / tensor) rows, of which the last ranks' may be padding.
// kInvalidArgument where heads or the MLP's width can't be dealt evenly, with the numbers that can.
Result<ModelConfig> tensor_part(const ModelConfig& model, uint32_t tensor);

// Whether each of `tensor` ranks has as many of a lane's predictions; kInvalidArgument with a remedy.
Status check_predictions(uint64_t predictions, uint32_t tensor);

// The rows that a rank holds of a table of `rows` that are dealt ceil(rows / size) each. The last ones may not exist.
constexpr HeldRows held_rows(uint64_t rows, TensorPlace place) {
  const uint64_t each = (rows + place.size - 1) / place.size;
  return {each * place.rank, each};
}

}  // namespace pitcrew::trainer
