#include "trainer/train/memory_plan.hpp"

#include <algorithm>

#include <gtest/gtest.h>

#include "trainer/checkpoint/device_copier.hpp"
#include "trainer/comm/memory_comm.hpp"
#include "trainer/device/cpu_device.hpp"
#include "trainer/kernels/cpu_kernels.hpp"
#include "trainer/train/lane_engine.hpp"

namespace pitcrew::trainer {
namespace {

ModelConfig tiny() {
  return {.layers = 3, .width = 32, .heads = 4, .kv_heads = 2, .mlp = 80, .vocab = 300, .context = 64};
}

// Qwen 2.5 32B, from its config.json.
ModelConfig qwen_32b() {
  ModelConfig model{.layers = 64,
                    .width = 5120,
                    .heads = 40,
                    .kv_heads = 8,
                    .mlp = 27648,
                    .vocab = 152064,
                    .context = 4096,
                    .rope_theta = 1e6,
                    .norm_eps = 1e-6};
  model.qkv_bias = true;
  return model;
}

// Counts what is allocated on it.
class CountingDevice : public CpuDevice {
 public:
  explicit CountingDevice(uint64_t& bytes) : CpuDevice({.threads = 1}), bytes_(bytes) {}
  Result<Buffer> allocate(std::string_view name, size_t bytes) override {
    bytes_ += bytes;
    return CpuDevice::allocate(name, bytes);
  }
  Result<Buffer> allocate_host(std::string_view name, size_t bytes) override {
    return CpuDevice::allocate(name, bytes);
  }

 private:
  uint64_t& bytes_;
};

template <typename T>
uint64_t allocated(const PlanRequest& request) {
  uint64_t bytes = 0;
  MemoryGroup gather(request.grid.shards), reduce(request.grid.shards);
  const auto gathering = gather.take(0), reducing = reduce.take(0);
  auto device = std::make_unique<CountingDevice>(bytes);
  auto kernels = create_cpu_kernels<T>(*device);
  MemoryGroup tensor(request.grid.tensor);
  const auto sharing = tensor.take(0);
  const LanePlan lanes =
      *LanePlan::make(request.sequences, request.micro, request.grid.data_ranks(), request.grid.shards);
  EngineSettings settings{request.model, request.tokens, lanes, 0, request.recompute};
  settings.masters = request.masters;
  settings.gather = gathering.get();
  settings.reduce = reducing.get();
  if (request.grid.tensor > 1) settings.tensor = sharing.get();
  const auto engine = LaneEngine::create<T>(std::move(settings), std::move(device), std::move(kernels));
  EXPECT_TRUE(engine.ok());
  if (request.numbers == Numbers::kMixed && request.device_pieces && request.grid.replicas > 1) {
    // Its own reservation fails in nobody's presence, behind the allocation.
    MemoryGroup replicas(request.grid.replicas);
    const auto replicating = replicas.take(0);
    for (uint32_t peer = 1; peer < request.grid.replicas; ++peer) replicas.kill(peer);
    GradientReducer reducer(*replicating, lanes, kDevicePiece, (*engine)->create_pieces());
    std::vector<float> sum(memory_plan(request)->sum_elements);
    const std::vector<const float*> mine(subtrees(lanes.range(0), lanes.lanes()).size(), sum.data());
    EXPECT_FALSE(reducer.reduce(mine, sum).ok());
  }
  return bytes;
}

uint64_t without_assumptions(const MemoryPlan& plan) {
  uint64_t bytes = 0;
  for (const auto& line : plan.lines) {
    if (line.what != "kernels' workspace" && line.what != "context and libraries (assumed)") bytes += line.bytes;
  }
  return bytes;
}

TEST(MemoryPlan, says_what_is_allocated_within_a_thousandth) {
  for (const Recompute recompute :
       {Recompute{}, Recompute{.norms = true}, Recompute{.activation = true, .block = true}}) {
    PlanRequest request{tiny(), 8, 2, 64, {.replicas = 2}, Numbers::kFloat, recompute};
    const auto plain = static_cast<double>(allocated<float>(request));
    EXPECT_NEAR(static_cast<double>(memory_plan(request)->bytes()), plain, plain / 1000);
    request.numbers = Numbers::kMixed;
    const auto mixed = static_cast<double>(allocated<BF16>(request));
    EXPECT_NEAR(static_cast<double>(without_assumptions(*memory_plan(request))), mixed, mixed / 1000);
    request.masters = Masters::kRemainder;
    const auto halves = static_cast<double>(allocated<BF16>(request));
    EXPECT_NEAR(static_cast<double>(without_assumptions(*memory_plan(request))), halves, halves / 1000);
  }
}

TEST(MemoryPlan, says_what_a_shard_allocates_within_a_thousandth) {
  for (const Grid grid : {Grid{2, 2}, Grid{1, 4}, Grid{1, 3}, Grid{1, 2, 2}, Grid{2, 3, 2}}) {
    for (const bool tied : {false, true}) {
      PlanRequest request{tiny(), 24, 2, 64, grid, Numbers::kFloat, {.block = true}};
      request.model.tie_embeddings = tied;
      const auto plain = static_cast<double>(allocated<float>(request));
      EXPECT_NEAR(static_cast<double>(memory_plan(request)->bytes()), plain, plain / 1000) << to_string(grid);
      request.numbers = Numbers::kMixed;
      request.masters = Masters::kRemainder;
      const auto mixed = static_cast<double>(allocated<BF16>(request));
      EXPECT_NEAR(static_cast<double>(without_assumptions(*memory_plan(request))), mixed, mixed / 1000);
    }
  }
}

TEST(MemoryPlan, says_what_a_tensor_rank_allocates_within_a_thousandth) {
  for (const ModelKind kind : {ModelKind::kLlama, ModelKind::kGpt2}) {
    for (const Recompute recompute : {Recompute{}, Recompute{.norms = true, .activation = true, .block = true}}) {
      PlanRequest request{tiny(), 8, 2, 64, {2, 1, 2}, Numbers::kFloat, recompute};
      request.model.kind = kind;
      if (kind == ModelKind::kGpt2) request.model.kv_heads = request.model.heads;
      request.model.vocab = 301;  // one row of padding
      const auto plain = static_cast<double>(allocated<float>(request));
      EXPECT_NEAR(static_cast<double>(memory_plan(request)->bytes()), plain, plain / 1000);
      request.numbers = Numbers::kMixed;
      const auto mixed = static_cast<double>(allocated<BF16>(request));
      EXPECT_NEAR(static_cast<double>(without_assumptions(*memory_plan(request))), mixed, mixed / 1000);
    }
  }
}

TEST(MemoryPlan, a_32b_model_on_8_by_8_is_added_up_as_by_hand) {
  EXPECT_EQ(qwen_32b().parameters(), 32'763'876'352u);  // as its model card counts: 32.8 B
  const PlanRequest request{qwen_32b(), 64, 1, 4096, {.replicas = 8, .shards = 8}, Numbers::kMixed, {.block = true}};
  const MemoryPlan plan = *memory_plan(request);
  const auto bytes = [&](const std::string& what) {
    for (const auto& line : plan.lines) {
      if (line.what.starts_with(what)) return static_cast<double>(line.bytes);
    }
    return 0.0;
  };
  const double parameters = 32'763'876'352.0, block = 487.6e6, embedding = 152064.0 * 5120;
  EXPECT_NEAR(bytes("masters"), 4 * parameters / 8, 1e6);
  EXPECT_NEAR(bytes("moments"), 8 * parameters / 8, 1e6);
  EXPECT_NEAR(bytes("weights"), 2 * parameters / 8, 1e6);
  EXPECT_NEAR(bytes("gradients, 1 x"), 4 * parameters / 8, 1e6);
  EXPECT_NEAR(bytes("gathered weights"), 2 * (2 * block + embedding), 2e6);
  EXPECT_NEAR(bytes("gradients not dealt"), 4 * (2 * block + embedding), 4e6);
  // Every block keeps its input; one block keeps all: in, two norms, middle, qkv, attention, up and hidden.
  const double rows = 4096, kept = 64 * rows * 5120 * 2, once = rows * 2 * (3 * 5120 + 7168 + 5120 + 3 * 27648);
  EXPECT_NEAR(bytes("activations of blocks"), kept + once, 2e6);
  EXPECT_TRUE(check_fits(request, 141'000'000'000).ok());
}

TEST(MemoryPlan, remainders_make_it_16_bytes_a_parameter_and_are_chosen_where_whole_masters_do_not_fit) {
  PlanRequest request{qwen_32b(), 64, 1, 4096, {.replicas = 8, .shards = 8}, Numbers::kMixed, {.block = true}};
  const auto per_parameter = [](const MemoryPlan& plan) {
    uint64_t state = 0;
    for (const auto& line : plan.lines) {
      for (const char* what : {"masters", "moments", "weights", "gradients, 1 x"})
        state += line.what.starts_with(what) ? line.bytes : 0;
    }
    return static_cast<double>(state) * 8 / 32'763'876'352.0;
  };
  const MemoryPlan whole = *memory_plan(request);
  request.masters = Masters::kRemainder;
  const MemoryPlan halves = *memory_plan(request);
  EXPECT_NEAR(per_parameter(whole), 18, 0.001);
  EXPECT_NEAR(per_parameter(halves), 16, 0.001);
  const uint64_t between = (whole.bytes() + halves.bytes()) / 2;
  EXPECT_EQ(choose_masters(request, std::nullopt, whole.bytes())->masters, Masters::kFloat);
  EXPECT_EQ(choose_masters(request, std::nullopt, between)->masters, Masters::kRemainder);
  EXPECT_EQ(choose_masters(request, Masters::kFloat, between)->masters, Masters::kFloat);
  EXPECT_EQ(choose_masters(request, Masters::kRemainder, whole.bytes())->masters, Masters::kRemainder);
  request.masters = Masters::kFloat;
  const Status status = check_fits(request, between);
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.error().message.find("; optimizer.master: remainder brings it to"), std::string::npos)
      << status.error().message;
}

TEST(MemoryPlan, counts_what_snapshots_take_to_the_byte) {
  for (const Masters masters : {Masters::kFloat, Masters::kRemainder}) {
    PlanRequest request{tiny(), 8, 2, 64, {.replicas = 2}, Numbers::kMixed, {}};
    request.masters = masters;
    const uint64_t without = memory_plan(request)->bytes();
    request.bounce = 0.25;
    uint64_t bytes = 0;
    CountingDevice device(bytes);
    const auto state = ModelState<BF16>::create(request.model, device, masters);
    uint64_t all = 0;
    for (const StateTensor& tensor : state->state_tensors()) all += tensor.bytes();
    const auto stream = device.create_stream("compute");
    bytes = 0;
    const StateKernels kernels{[](Stream&, const DigestList&) {}, [](Stream&, const SplitMasters&) {},
                               [](Stream&, const JoinMasters&) {}};
    const auto plan = plan_snapshot(all, state->state_tensors().size(), 2, 0.25, masters == Masters::kRemainder);
    ASSERT_TRUE(DeviceCopier::create(device, *stream, kernels, plan).ok());
    EXPECT_EQ(memory_plan(request)->bytes() - without, bytes);
  }
}

TEST(MemoryPlan, tensor_ranks_divide_heads_mlp_and_vocabulary) {
  PlanRequest request{qwen_32b(), 64, 1, 4096, {.replicas = 8, .shards = 1, .tensor = 8}, Numbers::kMixed, {}};
  const uint64_t whole = qwen_32b().parameters(), part = memory_plan(request)->parameters;
  // Norms (and nothing else) are held by all.
  EXPECT_NEAR(static_cast<double>(part), static_cast<double>(whole) / 8, 1e6);
  request.grid.tensor = 16;
  const auto refused = memory_plan(request);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.error().message.find("model.heads 40 can't be dealt evenly to 16 tensor ranks"), std::string::npos);
}

TEST(MemoryPlan, what_does_not_fit_says_by_how_much_and_what_helps) {
  PlanRequest request{qwen_32b(), 64, 1, 4096, {.replicas = 8, .shards = 8}, Numbers::kMixed, {}};
  const MemoryPlan plan = *memory_plan(request);
  const Status status = check_fits(request, 100'000'000'000);
  ASSERT_FALSE(status.ok());
  EXPECT_GT(plan.bytes(), 100'000'000'000u);
  EXPECT_NE(status.error().message.find("recompute: [block] brings it to"), std::string::npos)
      << status.error().message;
  const Status hopeless = check_fits(request, 10'000'000'000);
  ASSERT_FALSE(hopeless.ok());
  EXPECT_NE(hopeless.error().message.find("more GPUs or a smaller model"), std::string::npos);
  request.grid = {.replicas = 64};
  const Status sharded = check_fits(request, 141'000'000'000);
  ASSERT_FALSE(sharded.ok());
  EXPECT_NE(sharded.error().message.find("shards"), std::string::npos) << sharded.error().message;
}

PlanRequest gpt2_1558m() {
  ModelConfig model{.kind = ModelKind::kGpt2,
                    .layers = 48,
                    .width = 1600,
                    .heads = 25,
                    .kv_heads = 25,
                    .mlp = 6400,
                    .vocab = 50304,
                    .context = 1024};
  model.tie_embeddings = true;
  PlanRequest request{model, 16, 16, 1024, {}, Numbers::kMixed, {}};
  return request;
}

TEST(MemoryPlan, counts_what_cudnn_takes_for_attention) {
  PlanRequest request = gpt2_1558m();
  const uint64_t own = memory_plan(request)->bytes();
  request.attention = AttentionEngine::kCudnn;
  const MemoryPlan plan = *memory_plan(request);
  EXPECT_EQ(plan.bytes() - own, cudnn_workspace_bytes({16, 1024, 25, 25, 64}));
  // Tensor ranks have fewer heads each.
  request.model.heads = request.model.kv_heads = 20;
  request.model.width = 1280;
  request.grid = {1, 1, 4};
  const auto part = *memory_plan(request);
  const auto line = std::find_if(part.lines.begin(), part.lines.end(),
                                 [](const auto& each) { return each.what == "attention's workspace, at most"; });
  ASSERT_NE(line, part.lines.end());
  EXPECT_EQ(line->bytes, cudnn_workspace_bytes({16, 1024, 5, 5, 64}));
}

TEST(MemoryPlan, cudnn_is_chosen_where_its_workspace_fits) {
  PlanRequest request = gpt2_1558m();
  EXPECT_EQ(choose_attention(request, {}, {}, UINT64_MAX)->attention, AttentionEngine::kCudnn);
  request.masters = Masters::kRemainder;
  const uint64_t least = memory_plan(request)->bytes();
  // Masters as remainders cost less than leaving cuDNN.
  EXPECT_EQ(choose_attention(request, {}, {}, least + cudnn_workspace_bytes({16, 1024, 25, 25, 64}))->attention,
            AttentionEngine::kCudnn);
  EXPECT_EQ(choose_attention(request, {}, {}, least)->attention, AttentionEngine::kOwn);
  EXPECT_EQ(choose_attention(request, AttentionEngine::kCudnn, {}, least)->attention, AttentionEngine::kCudnn);
  EXPECT_EQ(choose_attention(request, AttentionEngine::kOwn, {}, UINT64_MAX)->attention, AttentionEngine::kOwn);
  request.model.own_head_width = 80;
  EXPECT_EQ(choose_attention(request, {}, {}, UINT64_MAX)->attention, AttentionEngine::kOwn);
}

TEST(MemoryPlan, what_does_not_fit_because_of_cudnn_says_so) {
  PlanRequest request = gpt2_1558m();
  request.masters = Masters::kRemainder;
  const uint64_t own = memory_plan(request)->bytes();
  request.attention = AttentionEngine::kCudnn;
  const Status refused = check_fits(request, own);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.error().message.find("; attention: own brings it to"), std::string::npos)
      << refused.error().message;
}

TEST(Grid, is_read_from_one_to_three_numbers) {
  EXPECT_EQ(*parse_grid("8"), (Grid{8, 1, 1}));
  EXPECT_EQ(*parse_grid("8x4"), (Grid{8, 4, 1}));
  EXPECT_EQ(*parse_grid("2x4x8"), (Grid{2, 4, 8}));
  for (const char* bad : {"", "0", "8x", "8x0", "x8", "1x1x1x1", "8y8"}) EXPECT_FALSE(parse_grid(bad).ok()) << bad;
}

}  // namespace
}  // namespace pitcrew::trainer
