#include <cmath>
#include <cstring>
#include <thread>

#include <gtest/gtest.h>

#include "lib/base/random.hpp"
#include "trainer/comm/exchange_comm.hpp"
#include "trainer/comm/memory_comm.hpp"
#include "trainer/kernels/cpu_kernels.hpp"
#include "trainer/parallel/mesh_comms.hpp"
#include "trainer/train/lane_engine.hpp"
#include "trainer/train/sharded_norm.hpp"
#include "trainer/train/traffic_plan.hpp"

namespace pitcrew::trainer {
namespace {

// Counts what its rank sends to others.
class CountingComm final : public ExchangeComm {
 public:
  explicit CountingComm(std::unique_ptr<Comm> below)
      : ExchangeComm(below->rank(), below->size()), below_(std::move(below)) {}
  Status exchange(std::span<const Send> sends, std::span<const Receive> receives) override {
    for (const Send& send : sends) sent_ += send.peer == rank() ? 0 : static_cast<double>(send.data.size());
    return below_->exchange(sends, receives);
  }
  void abort() override { below_->abort(); }
  double sent() const { return sent_; }

 private:
  std::unique_ptr<Comm> below_;
  double sent_ = 0;
};

PlanRequest request_of(Grid grid, bool tied) {
  PlanRequest request;
  request.model = {.layers = 5, .width = 32, .heads = 4, .kv_heads = 2, .mlp = 80, .vocab = 300, .context = 16};
  request.model.tie_embeddings = tied;
  request.sequences = 3 * grid.data_ranks();
  request.tokens = 16;
  request.grid = grid;
  return request;
}

TEST(TrafficPlan, says_how_many_bytes_a_step_sends) {
  for (const Grid grid : {Grid{2, 2}, Grid{1, 4}, Grid{2, 3}, Grid{1, 1, 2}, Grid{2, 2, 2}}) {
    for (const bool tied : {false, true}) {
      PlanRequest request = request_of(grid, tied);
      request.recompute.block = tied;
      const auto plan = traffic_plan(request);
      ASSERT_TRUE(plan) << plan.error().message;
      const LanePlan lanes = *LanePlan::make(request.sequences, 1, grid.data_ranks(), grid.shards);
      std::vector<std::unique_ptr<MemoryGroup>> channels;
      for (uint32_t i = 0; i < kMeshTraffics; ++i) channels.push_back(std::make_unique<MemoryGroup>(grid.ranks()));
      std::vector<std::thread> threads;
      for (uint32_t rank = 0; rank < grid.ranks(); ++rank) {
        threads.emplace_back([&, rank] {
          const Mesh mesh(grid, rank);
          std::vector<std::unique_ptr<CountingComm>> comms;
          std::array<Comm*, kMeshTraffics> all;
          for (uint32_t i = 0; i < kMeshTraffics; ++i) {
            comms.push_back(std::make_unique<CountingComm>(channels[i]->take(rank)));
            all[i] = comms.back().get();
          }
          auto groups = *MeshComms::create(mesh, groups_over(all));
          const auto sent = [&](MeshTraffic traffic) { return comms[static_cast<uint32_t>(traffic)]->sent(); };
          EngineSettings settings{request.model, request.tokens, lanes, mesh.data_rank(), request.recompute};
          settings.gather = &groups[MeshTraffic::kGather];
          settings.reduce = &groups[MeshTraffic::kReduce];
          if (grid.tensor > 1) settings.tensor = &groups[MeshTraffic::kTensor];
          const auto engine = LaneEngine::create_on_cpu(std::move(settings), {.threads = 1});
          ASSERT_TRUE(engine) << engine.error().message;
          (*engine)->init(1);
          const std::vector<int32_t> tokens(lanes.of(mesh.data_rank()).count() * 17, 65);
          ASSERT_TRUE((*engine)->compute(tokens).ok());
          EXPECT_EQ(sent(MeshTraffic::kGather), plan->gathered) << to_string(grid);
          EXPECT_EQ(sent(MeshTraffic::kReduce), plan->dealt) << to_string(grid);
          EXPECT_EQ(sent(MeshTraffic::kTensor), plan->exchanged) << to_string(grid);
          GradientReducer reducer(groups[MeshTraffic::kReplica], lanes);
          ASSERT_TRUE((*engine)->reduce(reducer).ok());
          // Pieces of a stretch may differ by an element.
          EXPECT_LE(sent(MeshTraffic::kReplica), plan->replicated + 1000) << to_string(grid);
          const bool even = grid.shards != 3;  // of 18 lanes the second 9 are more subtrees than the first
          EXPECT_GE(sent(MeshTraffic::kReplica), (even ? 1.0 : 0.5) * plan->replicated - 1000) << to_string(grid);
        });
      }
      for (std::thread& thread : threads) thread.join();
    }
  }
}

// Where a rank's bytes are, and what moves them.
enum class Way {
  kHost,    // the device's memory is the host's
  kStaged,  // it isn't, as far as its users know, and the communicators move the host's
  kDirect,  // the communicators move the device's
};

class DeviceOf final : public CpuDevice {
 public:
  explicit DeviceOf(Way way) : CpuDevice({.threads = 1, .apart = way != Way::kHost}), way_(way) {}
  Result<Buffer> allocate_host(std::string_view name, size_t bytes) override {
    if (way_ == Way::kDirect) {
      for (const char* staging : {"under way", "from shards", "shared blocks"})
        EXPECT_EQ(name.find(staging), std::string_view::npos) << name;
    }
    return CpuDevice::allocate_host(name, bytes);
  }

 private:
  const Way way_;
};

// As NCCL's: what it is given lies in the device's memory.
class DeviceComm final : public ExchangeComm {
 public:
  DeviceComm(Comm& below, Way way) : ExchangeComm(below.rank(), below.size()), below_(below), way_(way) {}
  bool device_memory() const override { return way_ == Way::kDirect; }
  Status exchange(std::span<const Send> sends, std::span<const Receive> receives) override {
    return below_.exchange(sends, receives);
  }
  void abort() override { below_.abort(); }

 private:
  Comm& below_;
  const Way way_;
};

// The floats of a state tensor, wherever its halves are.
std::vector<float> values_of(const StateTensor& tensor) {
  std::vector<float> values(tensor.held());
  if (tensor.remainders == nullptr) {
    if (!values.empty()) std::memcpy(values.data(), tensor.data, tensor.bytes());
    return values;
  }
  const auto* weights = reinterpret_cast<const BF16*>(tensor.data);
  const auto* remainders = reinterpret_cast<const uint16_t*>(tensor.remainders);
  for (size_t i = 0; i < values.size(); ++i) values[i] = join_master({weights[i], remainders[i]});
  return values;
}

// One rank's three steps with weights of BF16; what it holds in the end, by tensor.
using State = std::vector<std::pair<uint64_t, std::vector<float>>>;  // first element, values
State train_mixed(const PlanRequest& request, uint32_t rank, Way way, bool early, MeshComms& comms) {
  const Mesh mesh(request.grid, rank);
  DeviceComm gather(comms[MeshTraffic::kGather], way), reduce(comms[MeshTraffic::kReduce], way),
      replicas(comms[MeshTraffic::kReplica], way);
  const LanePlan lanes = *LanePlan::make(request.sequences, 1, request.grid.data_ranks(), request.grid.shards);
  auto device = std::make_unique<DeviceOf>(way);
  auto kernels = create_cpu_kernels<BF16>(*device);
  EngineSettings settings{request.model, request.tokens, lanes, mesh.data_rank(), {}};
  settings.gather = &gather;
  settings.reduce = &reduce;
  if (request.grid.tensor > 1) settings.tensor = &comms[MeshTraffic::kTensor];
  settings.masters = request.masters;
  auto engine = LaneEngine::create<BF16>(std::move(settings), std::move(device), std::move(kernels));
  if (!engine) return {};
  (*engine)->init(3);
  GradientReducer reducer(replicas, lanes, 1000, way == Way::kDirect ? (*engine)->create_pieces() : nullptr);
  if (early) (*engine)->reduce_early(&reducer);
  const LaneShare own = lanes.of(mesh.data_rank());
  for (uint64_t step = 1; step <= 3; ++step) {
    std::vector<int32_t> tokens;
    for (uint32_t i = 0; i < own.count(); ++i) {
      Random random(100 * step + own[i]);
      for (uint32_t t = 0; t < request.tokens + 1; ++t) tokens.push_back(static_cast<int32_t>(random.below(300)));
    }
    EXPECT_TRUE((*engine)->compute(tokens).ok());
    EXPECT_TRUE((*engine)->reduce(reducer).ok());
    (*engine)->update(static_cast<double>(request.sequences) * request.tokens, 0.5, INFINITY, {.learning_rate = 0.01},
                      step, [] {});
    EXPECT_EQ((*engine)->updated().finite, 1u);
  }
  (*engine)->reduce_early(nullptr);
  State state;
  for (const StateTensor& tensor : (*engine)->state_tensors()) state.emplace_back(tensor.first, values_of(tensor));
  return state;
}

// What all ranks of the grid hold in the end.
std::vector<State> train_world(const PlanRequest& request, Way way, bool early = false) {
  const uint32_t ranks = request.grid.ranks();
  std::vector<std::unique_ptr<MemoryGroup>> channels;
  for (uint32_t i = 0; i < kMeshTraffics; ++i) channels.push_back(std::make_unique<MemoryGroup>(ranks));
  std::vector<State> states(ranks);
  std::vector<std::thread> threads;
  for (uint32_t rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      std::vector<std::unique_ptr<Comm>> own;
      std::array<Comm*, kMeshTraffics> all;
      for (uint32_t i = 0; i < kMeshTraffics; ++i) {
        own.push_back(channels[i]->take(rank));
        all[i] = own.back().get();
      }
      auto comms = MeshComms::create(Mesh(request.grid, rank), groups_over(all));
      ASSERT_TRUE(comms) << comms.error().message;
      states[rank] = train_mixed(request, rank, way, early, *comms);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return states;
}

TEST(ShardedEngine, with_bf16_weights_gives_the_bits_of_one_rank_whichever_way_bytes_go) {
  struct Case {
    Way way;
    bool early;
    Masters masters;
    Grid grid;
  };
  for (const auto& [way, early, masters, grid] :
       {Case{Way::kHost, false, Masters::kFloat, {2, 2}}, Case{Way::kStaged, true, Masters::kRemainder, {2, 2}},
        Case{Way::kStaged, false, Masters::kRemainder, {3, 2}}, Case{Way::kHost, true, Masters::kRemainder, {3, 2}},
        Case{Way::kHost, true, Masters::kRemainder, {1, 3, 2}}, Case{Way::kStaged, true, Masters::kFloat, {2, 2, 2}},
        Case{Way::kDirect, false, Masters::kRemainder, {2, 2}},
        Case{Way::kDirect, true, Masters::kRemainder, {2, 2}}}) {
    PlanRequest request = request_of(grid, way != Way::kHost);
    request.masters = masters;
    PlanRequest alone = request;
    alone.grid = {1, 1, grid.tensor};
    const std::vector<State> whole = train_world(alone, way), parts = train_world(request, way, early);
    for (uint32_t rank = 0; rank < parts.size(); ++rank) {
      const State &part = parts[rank], &expected = whole[rank % grid.tensor];
      ASSERT_EQ(part.size(), expected.size());
      for (size_t t = 0; t < part.size(); ++t) {
        const auto& [first, values] = part[t];
        ASSERT_LE(first + values.size(), expected[t].second.size());
        EXPECT_TRUE(values.empty() ||
                    std::memcmp(values.data(), expected[t].second.data() + first, values.size() * sizeof(float)) == 0)
            << "tensor " << t << " of rank " << rank << ", " << to_string(grid);
      }
    }
  }
}

TEST(ShardedNorm, has_the_bits_of_the_kernel_on_the_whole_arena) {
  Random random(11);
  for (int round = 0; round < 12; ++round) {
    std::vector<uint64_t> bounds{0};
    for (uint32_t unit = 0; unit < 2 + random.below(6); ++unit)
      bounds.push_back(bounds.back() + 16 * (1 + random.below(round % 2 == 0 ? 40 : 30'000)));
    const auto shards = static_cast<uint32_t>(2 + random.below(7));
    const ShardLayout layout(bounds, shards);
    std::vector<float> whole(layout.flat_elements());
    for (float& x : whole) x = static_cast<float>(random.uniform() - 0.5);
    // All of it, or what a tensor rank counts: some runs, one after another.
    std::vector<ShardLayout::Run> runs{{0, whole.size()}};
    if (round % 3 > 0) {
      runs.clear();
      for (uint64_t at = 16 * random.below(9); at < whole.size(); at += 16 * random.below(3000)) {
        const uint64_t count = std::min<uint64_t>(whole.size() - at, 16 * (1 + random.below(6000)));
        runs.push_back({at, count});
        at += count;
      }
    }
    double expected = 0;
    {
      CpuDevice device({.threads = 1});
      const auto kernels = create_cpu_kernels<float>(device);
      const auto stream = device.create_stream("compute");
      for (const ShardLayout::Run& run : runs)
        kernels->enqueue(*stream, SquareSum<float>{run.count, whole.data() + run.first, &expected, &run != &runs[0]});
      stream->synchronize();
    }
    MemoryGroup group(shards);
    std::vector<std::thread> threads;
    for (uint32_t shard = 0; shard < shards; ++shard) {
      threads.emplace_back([&, shard] {
        CpuDevice device({.threads = 1});
        const auto kernels = create_cpu_kernels<float>(device);
        const auto stream = device.create_stream("compute");
        const auto comm = group.take(shard);
        const auto norm =
            ShardedNorm<float>::create(SquareSumPlan(layout, kSumBlock, runs), shard, *comm, device, *kernels, *stream);
        ASSERT_TRUE(norm) << norm.error().message;
        std::vector<float> slice(layout.slice_elements());
        for (uint32_t unit = 0; unit < layout.units(); ++unit) {
          const auto own = layout.own(unit, shard);
          std::copy_n(whole.data() + own.first, own.count, slice.data() + layout.offset(unit));
        }
        const auto sum = (*norm)->square_sum(slice.data());
        ASSERT_TRUE(sum) << sum.error().message;
        EXPECT_EQ(*sum, expected) << "round " << round << ", " << shards << " shards";
        EXPECT_TRUE(comm->barrier().ok());
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
}

}  // namespace
}  // namespace pitcrew::trainer
