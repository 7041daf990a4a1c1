#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/result.hpp"
#include "trainer/kernels/attention_engine.hpp"
#include "trainer/model/config.hpp"
#include "trainer/model/model.hpp"
#include "trainer/parallel/lanes.hpp"
#include "trainer/parallel/mesh.hpp"

namespace pitcrew::trainer {

enum class Numbers {
  kFloat,  // a CPU's: everything is float
  kMixed,  // a GPU's: weights and activations BF16; moments and gradients float, masters as `masters` says
};

struct PlanRequest {
  ModelConfig model;
  uint32_t sequences = 0, micro = 1, tokens = 0;  // of the batch
  Grid grid;
  Numbers numbers = Numbers::kFloat;
  Recompute recompute;
  Masters masters = Masters::kFloat;
  // Checkpoints are kept, and this part of a rank's slice may wait in the bounce buffer; on a CPU there is none.
  std::optional<double> bounce = {};
  // NCCL moves the replicas' sums and we add them: pieces of them lie on the device. On a CPU they don't.
  bool device_pieces = true;
  AttentionEngine attention = AttentionEngine::kOwn;
  uint32_t passes = 1;  // that make a lane
};

// Elements of a piece of every subtree, in the device's memory, where NCCL moves; NCCL is slow with messages much
// smaller than its own buffers.
inline constexpr uint64_t kDevicePiece = uint64_t{2} << 20;

// What one rank (the one with most) keeps in the device's memory while it trains, by kind.
struct MemoryPlan {
  struct Line {
    std::string what;
    uint64_t bytes = 0;
  };
  std::vector<Line> lines;
  uint64_t sum_elements = 0;  // of one sum of gradients: the rank's own slice
  uint64_t parameters = 0;    // of this rank's tensor part, all shards together
  uint64_t block_bytes = 0;   // the most that a block's activations take
  uint32_t gradient_buffers = 0;
  uint64_t bytes() const;
};

// What kernels need beside tensors: partial sums of norms and biases, attention's row sums, matrix products' own.
uint64_t kernel_workspace_bytes(const ModelConfig& model, LaneShape lane);

// Of a lane of `part`, which is tensor_part() of the model.
AttentionShape attention_shape(const ModelConfig& part, LaneShape lane);

// Pure arithmetic on the layouts that are allocated later; where tensor is 1 it is these but for rounding.
// kInvalidArgument where the grid does not divide the model or the batch.
Result<MemoryPlan> memory_plan(const PlanRequest& request);

// The request with masters as they were asked for; else whole where that fits into `available` bytes, and in two halves
// where it does not.
Result<PlanRequest> choose_masters(PlanRequest request, std::optional<Masters> asked, uint64_t available);

// The request with the engine of attention that was asked for; else cuDNN where it is used for this shape and its
// workspace fits too, with masters in whatever form.
Result<PlanRequest> choose_attention(PlanRequest request, std::optional<AttentionEngine> asked,
                                     std::optional<Masters> masters, uint64_t available);

// Nothing where the plan fits into `available` bytes; else what to change first so that it does, and by how much it is
// too large.
Status check_fits(const PlanRequest& request, uint64_t available);

}  // namespace pitcrew::trainer
