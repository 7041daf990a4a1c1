#pragma once

#include <cstdint>
#include <vector>

#include "trainer/device/device.hpp"
#include "trainer/model/config.hpp"
#include "trainer/tensor/cut.hpp"
#include "trainer/tensor/precision.hpp"

namespace pitcrew::trainer {

// Where a model's weights and gradients are when they are not all there at once. Unit 0 is the embedding (and
// positions), then comes each block, last the final norm and, where embeddings are not tied, the head. Called by
// Model::forward_backward and forward, in the order in which units are used, on the caller's thread.
template <typename T>
class ModelUnits {
 public:
  virtual ~ModelUnits() = default;
  // Waits until the unit's weights are on the device. What is returned stands for element 0 of the flat arena: the
  // unit's elements lie at their places in it, and nothing else may be touched.
  virtual const T* weights(uint32_t unit) = 0;
  // What reads them was given to the stream.
  virtual void release_weights(Stream& stream, uint32_t unit) = 0;
  // Waits for a place for the unit's gradient; as weights().
  virtual Wide<T>* gradients(Stream& stream, uint32_t unit) = 0;
  // What computes it was given to the stream, all of it, what tensor ranks add up included.
  virtual void release_gradients(Stream& stream, uint32_t unit) = 0;
};

// Where units begin in the flat arena of parameters, and where the last ends: config.layers + 3 element numbers. Of
// tensor ranks the same for all.
template <typename T>
std::vector<uint64_t> unit_bounds(const ModelConfig& config, TensorPlace place = {});

}  // namespace pitcrew::trainer
