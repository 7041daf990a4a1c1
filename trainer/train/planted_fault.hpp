#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "lib/base/result.hpp"
#include "lib/base/strong.hpp"
#include "trainer/tensor/state.hpp"

namespace pitcrew::trainer {

// For tests alone: a fault that is planted into the computing of a CPU, to prove that it is found. PITCREW_TEST_FAULT,
// JSON:
//
//   {"node": "node-1", "step": 40}               a bit of the gradient, whenever the rank on this node computes step 40
//   {"node": "node-1", "step": 40, "times": 1}   the first time only
//   {"sample": 331}                              whoever computes sample 331: what a bad sample does
//   {"node": "node-1", "step": 40, "what": "weight"}  a bit of a weight, after the optimizer's step 40, once
//
// `rank` may stand in place of `node`. The bit is the highest of the exponent, unless `bit` names another (0 to 31).
// Owned by the training thread; gradients are flipped on the stream's.
class PlantedFault {
 public:
  // Of the environment; nothing where it isn't set. kInvalidArgument names what is wrong.
  static Result<std::optional<PlantedFault>> read(const std::function<const char*(const char*)>& get, uint32_t rank);

  // What is computed next: the step, where the run's samples of this rank's lanes begin, and that it has every
  // stride-th lane.
  void begin(Step step, uint64_t first_sample, uint32_t micro, uint32_t stride = 1);
  // Lane number `lane` of the rank is done.
  void after_lane(uint32_t lane, std::span<float> gradient);
  void after_update(Step step, const std::vector<StateTensor>& tensors);

 private:
  bool here_ = true;  // this node or rank
  std::optional<Step> step_;
  std::optional<uint64_t> sample_;
  bool weight_ = false;
  uint32_t bit_ = 30;
  uint64_t times_ = ~uint64_t{0};

  Step now_;
  uint64_t first_sample_ = 0;
  uint32_t micro_ = 1;
  uint32_t stride_ = 1;
};

}  // namespace pitcrew::trainer
