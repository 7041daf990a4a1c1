#include "trainer/train/memory_plan.hpp"

#include <algorithm>
#include <cstdio>

#include "trainer/checkpoint/device_copier.hpp"
#include "trainer/kernels/cast.hpp"
#include "trainer/kernels/reduce.hpp"
#include "trainer/model/activations.hpp"
#include "trainer/model/tensor_part.hpp"
#include "trainer/train/lane_engine.hpp"
#include "trainer/train/sharded_engine.hpp"

namespace pitcrew::trainer {
namespace {

// cuBLASLt's on Hopper (NVIDIA cuBLAS documentation, cublasSetWorkspace: 32 MiB recommended).
constexpr uint64_t kProductWorkspace = uint64_t{32} << 20;
// What a context, its modules and the libraries' own take. An assumption: it depends on driver and GPU.
constexpr uint64_t kContext = uint64_t{768} << 20;

uint64_t ceil_div(uint64_t a, uint64_t b) { return (a + b - 1) / b; }

template <typename T>
ArenaLayout activations(const PlanRequest& request, const ModelConfig& part) {
  return Activations<T>::layout(part, {request.micro, request.tokens}, request.recompute, request.grid.tensor);
}

// What the state and a step's gradients take on the rank with most lanes.
ShardedSizes sizes_of(const PlanRequest& request, const ModelConfig& part, const LanePlan& lanes) {
  const bool mixed = request.numbers == Numbers::kMixed;
  ShardedSizes most;
  for (uint32_t replica = 0; replica < lanes.replicas(); ++replica) {
    ShardedSizes sizes;
    if (lanes.shards() > 1) {
      const uint32_t rank = replica * lanes.shards();
      // The first tensor rank's norm counts all it holds, that of the others some runs of it.
      for (uint32_t tensor = std::min(request.grid.tensor, 2u); tensor-- > 0;) {
        const TensorPlace place{tensor, request.grid.tensor};
        const uint64_t norm = sizes.norm;
        sizes = mixed ? sharded_sizes<BF16>(request.model, lanes, rank, place)
                      : sharded_sizes<float>(request.model, lanes, rank, place);
        sizes.norm = std::max(sizes.norm, norm);
      }
    } else {
      sizes.slice = parameter_layout<BF16>(part).flat_elements<BF16>();
      sizes.sums = static_cast<uint32_t>(LaneEngine::gradient_buffers(lanes, replica));
      sizes.digests = Digest{.bytes = sizes.slice * sizeof(float)}.count();
    }
    if (replica == 0 || sizes.sums > most.sums) most = sizes;
    most.digests = std::max(most.digests, sizes.digests);
  }
  return most;
}

// Chunks of a shard's part of the state, which replicas compare.
uint64_t state_chunks(const PlanRequest& request, const ModelConfig& part) {
  const bool halves = request.numbers == Numbers::kMixed && request.masters == Masters::kRemainder;
  const ParameterLayout layout = parameter_layout<BF16>(part);
  uint64_t chunks = 0;
  for (const Slice& slice : layout.arena.slices()) {
    const uint64_t bytes = ceil_div(slice.bytes(), request.grid.shards);
    chunks +=
        2 * Digest{.bytes = bytes}.count() + (halves ? 2 : 1) * Digest{.bytes = halves ? bytes / 2 : bytes}.count();
  }
  return chunks;
}

uint64_t bounce_bytes(const PlanRequest& request, const ModelConfig& part) {
  uint64_t bytes = 0;
  const ParameterLayout layout = parameter_layout<BF16>(part);
  for (const Slice& slice : layout.arena.slices()) bytes += 3 * slice.bytes();
  return plan_snapshot(ceil_div(bytes, request.grid.shards), 3 * layout.parameters.size(), request.grid.replicas,
                       *request.bounce, request.masters == Masters::kRemainder)
      .bytes();
}

// What a GradientReducer reserves: a piece of every subtree of all replicas.
uint64_t piece_bytes(const LanePlan& lanes, uint64_t slice) {
  if (lanes.replicas() == 1) return 0;
  uint64_t pieces = 0;
  for (uint32_t replica = 0; replica < lanes.replicas(); ++replica)
    pieces += subtrees(lanes.range(replica), lanes.lanes()).size();
  return pieces * std::min(kDevicePiece, slice / lanes.replicas() + 1) * sizeof(float);
}

std::string megabytes(uint64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.0f MB", static_cast<double>(bytes) / 1e6);
  return text;
}

}  // namespace

uint64_t MemoryPlan::bytes() const {
  uint64_t sum = 0;
  for (const Line& line : lines) sum += line.bytes;
  return sum;
}

uint64_t kernel_workspace_bytes(const ModelConfig& model, LaneShape lane) {
  const uint64_t rows = lane.predictions();
  const uint64_t widest = std::max({uint64_t{model.width}, uint64_t{model.qkv_width()}, 2 * uint64_t{model.mlp}});
  // Attention's row sums; partial sums of norms, biases and flat sums (kernels cut rows into at most 512 blocks); the
  // tokens in the order in which the embedding's gradient takes them.
  const uint64_t attention = rows * model.heads * sizeof(float);
  const uint64_t partials = 512 * 2 * widest * sizeof(float);
  const uint64_t flat = ceil_div(model.parameters() + (uint64_t{1} << 16), kSumBlock) * sizeof(double);
  const uint64_t tokens = 2 * rows * sizeof(int32_t);
  return kProductWorkspace + ceil_div(std::max({attention, partials, flat, tokens}), 1 << 20) * (1 << 20);
}

AttentionShape attention_shape(const ModelConfig& part, LaneShape lane) {
  return {lane.sequences, lane.tokens, part.heads, part.kv_heads, part.head_width()};
}

Result<MemoryPlan> memory_plan(const PlanRequest& request) {
  PITCREW_TRY(check_predictions(uint64_t{request.micro} * request.tokens, request.grid.tensor));
  PITCREW_ASSIGN(const ModelConfig part, tensor_part(request.model, request.grid.tensor));
  PITCREW_ASSIGN(const LanePlan lanes, LanePlan::make(request.sequences, request.micro, request.grid.data_ranks(),
                                                      request.grid.shards, request.passes));
  const bool mixed = request.numbers == Numbers::kMixed;
  const ShardedSizes sizes = sizes_of(request, part, lanes);
  const uint64_t own = sizes.slice;

  MemoryPlan plan;
  plan.parameters = part.parameters();
  plan.sum_elements = own;
  const auto line = [&](const std::string& what, uint64_t bytes) {
    if (bytes > 0) plan.lines.push_back({what, bytes});
  };
  plan.gradient_buffers = sizes.sums;
  const bool halves = mixed && request.masters == Masters::kRemainder;
  line(halves  ? "masters' remainders"
       : mixed ? "masters"
               : "weights",
       own * (halves ? sizeof(uint16_t) : sizeof(float)));
  line("moments", 2 * own * sizeof(float));
  if (mixed) line("weights", own * sizeof(BF16));
  line("gradients, " + std::to_string(plan.gradient_buffers) + " x", plan.gradient_buffers * own * sizeof(float));
  // A unit is gathered while the one before computes, and its gradient is dealt out while the next computes.
  line("gathered weights", sizes.gathered);
  line("gradients not dealt out yet", sizes.computed);
  line("gradients from shards", sizes.received);
  line("blocks of the norm", sizes.norm);
  if (mixed && request.device_pieces) line("pieces of the replicas' sums", piece_bytes(lanes, own));
  const ArenaLayout layout = mixed ? activations<BF16>(request, part) : activations<float>(request, part);
  uint64_t blocks = 0, logits = 0;
  for (const Slice& slice : layout.slices()) {
    if (slice.name.starts_with("layers.")) blocks += slice.bytes();
    if (slice.name == "logits") logits += slice.bytes();
  }
  plan.block_bytes = blocks;
  line("activations of blocks", blocks);
  line("logits", logits);
  line("other activations", layout.bytes() - blocks - logits);
  const uint64_t lane_count = std::max(1u, lanes.micro_steps());
  line("tokens and digests",
       lane_count * request.passes *
               (request.micro * (request.tokens + uint64_t{1}) * sizeof(int32_t) + sizeof(double)) +
           (sizes.digests + state_chunks(request, part)) * sizeof(uint64_t) + 64);
  if (mixed && request.bounce) line("checkpoints' bounce buffer", bounce_bytes(request, part));
  if (mixed) {
    line("kernels' workspace", kernel_workspace_bytes(part, {request.micro, request.tokens}));
    if (request.attention == AttentionEngine::kCudnn) {
      line("attention's workspace, at most",
           cudnn_workspace_bytes(attention_shape(part, {request.micro, request.tokens})));
    }
    line("context and libraries (assumed)", kContext);
  }
  return plan;
}

Result<PlanRequest> choose_masters(PlanRequest request, std::optional<Masters> asked, uint64_t available) {
  request.masters = asked.value_or(Masters::kFloat);
  if (asked || request.numbers != Numbers::kMixed) return request;
  PITCREW_ASSIGN(const MemoryPlan plan, memory_plan(request));
  if (plan.bytes() > available) request.masters = Masters::kRemainder;
  return request;
}

Result<PlanRequest> choose_attention(PlanRequest request, std::optional<AttentionEngine> asked,
                                     std::optional<Masters> masters, uint64_t available) {
  request.attention = asked.value_or(AttentionEngine::kOwn);
  if (asked || request.numbers != Numbers::kMixed) return request;
  PITCREW_ASSIGN(const ModelConfig part, tensor_part(request.model, request.grid.tensor));
  if (!check_cudnn_shape(attention_shape(part, {request.micro, request.tokens}))) return request;
  PlanRequest with = request;
  with.attention = AttentionEngine::kCudnn;
  PITCREW_ASSIGN(const PlanRequest smallest, choose_masters(with, masters, available));
  PITCREW_ASSIGN(const MemoryPlan plan, memory_plan(smallest));
  return plan.bytes() <= available ? with : request;
}

Status check_fits(const PlanRequest& request, uint64_t available) {
  PITCREW_ASSIGN(const MemoryPlan plan, memory_plan(request));
  if (plan.bytes() <= available) return {};
  std::string remedy;
  // The cheapest change first: what is computed again costs less than smaller products.
  std::vector<std::pair<std::string, PlanRequest>> knobs;
  std::string with;  // what is on already
  const auto knob = [&](const std::string& name, auto change) {
    PlanRequest changed = request;
    changed.masters = Masters::kRemainder;
    if (with.find("bounce") != std::string::npos) changed.bounce = 0;
    if (with.find("attention") != std::string::npos) changed.attention = AttentionEngine::kOwn;
    change(changed);
    knobs.emplace_back(name, changed);
  };
  if (request.numbers == Numbers::kMixed && request.masters == Masters::kFloat) {
    // Costs no time; what follows needs it less often than not, so it is on from here.
    knob("optimizer.master: remainder", [](PlanRequest&) {});
    with = "optimizer.master: remainder and ";
  }
  if (request.bounce.value_or(0) > 0) {
    knob(with + "checkpoint.bounce: 0", [](PlanRequest& r) { r.bounce = 0; });
    with += "checkpoint.bounce: 0 and ";
  }
  if (request.attention == AttentionEngine::kCudnn) {
    knob(with + "attention: own", [](PlanRequest& r) { r.attention = AttentionEngine::kOwn; });
    with += "attention: own and ";
  }
  if (!request.recompute.block) {
    knob(with + "recompute: [norms, activation]",
         [](PlanRequest& r) { r.recompute = {.norms = true, .activation = true}; });
    knob(with + "recompute: [block]",
         [](PlanRequest& r) { r.recompute = {.norms = true, .activation = true, .block = true}; });
  }
  for (uint32_t micro = request.micro / 2; micro > 0; micro /= 2) {
    if (request.sequences % micro != 0) continue;
    // The same lanes in more passes: more lanes would take more gradients.
    const uint32_t passes =
        request.grid.shards == 1 && request.micro % micro == 0 ? request.passes * (request.micro / micro) : 1;
    const std::string set = ", batch.micro: " + std::to_string(micro);
    const std::string also = passes == request.passes ? "" : " and batch.passes: " + std::to_string(passes);
    knob(with + "recompute: [block]" + set + also, [&](PlanRequest& r) {
      r.recompute = {.norms = true, .activation = true, .block = true};
      r.micro = micro;
      r.passes = passes;
    });
  }
  for (uint32_t shards = 2 * request.grid.shards; shards <= request.grid.data_ranks(); shards *= 2) {
    if (request.grid.data_ranks() % shards != 0) continue;
    knob(with + "recompute: [block] and " + std::to_string(shards) + " shards", [&](PlanRequest& r) {
      r.recompute = {.norms = true, .activation = true, .block = true};
      r.grid.replicas = request.grid.data_ranks() / shards;
      r.grid.shards = shards;
    });
  }
  for (const auto& [name, changed] : knobs) {
    const auto changed_plan = memory_plan(changed);
    if (!changed_plan || changed_plan->bytes() > available) continue;
    remedy = name + " brings it to " + megabytes(changed_plan->bytes());
    break;
  }
  if (remedy.empty())
    remedy = "no setting of recompute, batch.micro or shards is enough: it takes more GPUs or a smaller model";
  return Error(Code::kResourceExhausted, "the model does not fit: a rank needs " + megabytes(plan.bytes()) + ", " +
                                             megabytes(plan.bytes() - available) + " more than the " +
                                             megabytes(available) + " there are; " + remedy);
}

}  // namespace pitcrew::trainer
