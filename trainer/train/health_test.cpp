#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "trainer/train/replica_check.hpp"
#include "trainer/train/spike_rule.hpp"
#include "trainer/train/step_meter.hpp"
#include "trainer/train/testing/training_ranks.hpp"

namespace pitcrew::trainer {
namespace {

namespace fs = std::filesystem;
using launcher_socket::Evidence;

// Answers everything, and remembers what it was told.
class ListeningLauncher final : public LauncherClient {
 public:
  Result<launcher_socket::Answer> call(const launcher_socket::Request& request) override {
    std::lock_guard lock(mutex_);
    if (const auto* said = std::get_if<Evidence>(&request)) evidence.push_back(*said);
    return launcher_socket::Answer{};
  }
  void abort() override {}

  std::vector<Evidence> evidence;

 private:
  std::mutex mutex_;
};

class TrainHealth : public TrainingRanks {
 protected:
  TrainConfig config() const {
    TrainConfig config = tiny();
    config.steps = 20;
    config.optimizer.learning_rate = 1e-3;
    config.checkpoint.every_steps = 4;
    config.checkpoint.path = folder_ + "/run";
    return config;
  }

  struct HealthWorld : World {
    std::vector<Evidence> evidence;
  };
  HealthWorld run(const TrainConfig& config, uint32_t ranks, const std::string& fault,
                  std::optional<ReplayPoint> replay = std::nullopt) {
    ListeningLauncher launcher;
    Hooks hooks;
    hooks.fault = fault;
    hooks.given = [&](RankEnvironment& environment, TrainerServices& services, Channels&) {
      environment.replay = replay;
      services.launcher = &launcher;
    };
    return {train_ranks(config, memory_channels(ranks), hooks), launcher.evidence};
  }
};

TEST_F(TrainHealth, a_bit_that_flips_once_is_found_by_computing_the_step_again) {
  const HealthWorld world = run(config(), 2, R"({"rank": 1, "step": 12, "times": 1})");
  EXPECT_EQ(world.outcomes[1].exit_code, exit_code::kReplaceNode) << world.outcomes[1].message;
  EXPECT_NE(world.outcomes[1].message.find("step 12: gradient norm"), std::string::npos) << world.outcomes[1].message;
  EXPECT_NE(world.outcomes[1].message.find("gave other bits"), std::string::npos);
  EXPECT_EQ(world.outcomes[0].lost_peer, Rank(1));
  ASSERT_EQ(world.evidence.size(), 1u);
  EXPECT_EQ(world.evidence[0].kind, "spike");
  EXPECT_EQ(world.evidence[0].rank, Rank(1));
  EXPECT_FALSE(world.evidence[0].step);
  // Nothing of it was applied: the checkpoint before goes on to the end.
  const HealthWorld again = run(config(), 2, "");
  EXPECT_EQ(again.outcomes[0].exit_code, 0) << again.outcomes[0].message;
}

TEST_F(TrainHealth, the_same_bits_twice_are_told_with_their_digest_and_other_bits_elsewhere_blame_the_first_node) {
  const HealthWorld first = run(config(), 2, R"({"rank": 1, "step": 12})");
  EXPECT_EQ(first.outcomes[1].exit_code, exit_code::kTryAgain) << first.outcomes[1].message;
  EXPECT_EQ(first.outcomes[0].lost_peer, Rank(1));
  ASSERT_EQ(first.evidence.size(), 1u);
  ASSERT_EQ(first.evidence[0].step, Step(12));
  ASSERT_NE(first.evidence[0].digest, "");

  const ReplayPoint replay{Step(12), Rank(1), "node-1", first.evidence[0].digest, true};
  const HealthWorld second = run(config(), 2, "", replay);
  EXPECT_EQ(second.outcomes[0].exit_code, 0) << second.outcomes[0].message;
  ASSERT_EQ(second.evidence.size(), 1u);
  EXPECT_EQ(second.evidence[0].kind, "replay");
  EXPECT_EQ(second.evidence[0].rank, Rank(1));
  EXPECT_EQ(second.evidence[0].step, Step(12));
  EXPECT_NE(second.evidence[0].digest, "");
  EXPECT_NE(second.evidence[0].digest, replay.digest);
}

TEST_F(TrainHealth, a_bad_sample_gives_the_same_bits_elsewhere_and_is_named) {
  const std::string fault = R"({"sample": 93})";  // of step 12, rank 1's second lane
  const HealthWorld first = run(config(), 2, fault);
  EXPECT_EQ(first.outcomes[1].exit_code, exit_code::kTryAgain) << first.outcomes[1].message;
  ASSERT_EQ(first.evidence.size(), 1u);
  ASSERT_EQ(first.evidence[0].step, Step(12));

  ReplayPoint replay{Step(12), Rank(1), "node-1", first.evidence[0].digest, true};
  const HealthWorld second = run(config(), 2, fault, replay);
  EXPECT_EQ(second.outcomes[1].exit_code, exit_code::kBadData) << second.outcomes[1].message;
  EXPECT_NE(second.outcomes[1].message.find("the same bits as on node node-1"), std::string::npos);
  EXPECT_NE(second.outcomes[1].message.find("look at sample 93,"), std::string::npos) << second.outcomes[1].message;
  ASSERT_EQ(second.evidence.size(), 1u);
  EXPECT_FALSE(second.evidence[0].step);

  replay.elsewhere = false;
  const HealthWorld alone = run(config(), 2, fault, replay);
  EXPECT_EQ(alone.outcomes[1].exit_code, exit_code::kBadData) << alone.outcomes[1].message;
  EXPECT_NE(alone.outcomes[1].message.find("not confirmed elsewhere"), std::string::npos) << alone.outcomes[1].message;
}

TEST_F(TrainHealth, bits_of_another_kind_of_hardware_accuse_nobody) {
  const ReplayPoint replay{Step(12), Rank(1), "node-1", "00000000-0123456789abcdef", true};
  const HealthWorld world = run(config(), 2, "", replay);
  EXPECT_EQ(world.outcomes[0].exit_code, 0) << world.outcomes[0].message;
  ASSERT_EQ(world.evidence.size(), 1u);
  EXPECT_EQ(world.evidence[0].digest, "");
}

TEST_F(TrainHealth, a_weight_that_flips_on_one_replica_is_found_and_the_replica_named) {
  TrainConfig often = config();
  often.compare_every = 5;
  often.checkpoint = {};
  for (const uint32_t ranks : {2u, 3u, 4u}) {
    const HealthWorld world = run(often, ranks, R"({"rank": 1, "step": 10, "what": "weight"})");
    for (uint32_t rank = 0; rank < ranks; ++rank) {
      const Outcome& outcome = world.outcomes[rank];
      EXPECT_NE(outcome.message.find("step 10: the replicas' states differ in 1 tensor, the first is embed.weight: "
                                     "rank 1 "),
                std::string::npos)
          << outcome.message;
      EXPECT_EQ(outcome.exit_code, rank == 1 ? exit_code::kReplaceNode : exit_code::kTryAgain);
      EXPECT_EQ(outcome.lost_peer, rank == 1 ? std::nullopt : std::optional(Rank(1)));
    }
    ASSERT_EQ(world.evidence.size(), 1u) << ranks;
    EXPECT_EQ(world.evidence[0].kind, "digest");
    EXPECT_EQ(world.evidence[0].rank, Rank(1));
  }
}

TEST_F(TrainHealth, of_two_replicas_a_small_difference_names_none) {
  TrainConfig often = config();
  often.compare_every = 5;
  often.checkpoint = {};
  const HealthWorld world = run(often, 2, R"({"rank": 1, "step": 10, "what": "weight", "bit": 3})");
  for (const Outcome& outcome : world.outcomes) {
    EXPECT_EQ(outcome.exit_code, exit_code::kTryAgain);
    EXPECT_NE(outcome.message.find("can't be told"), std::string::npos) << outcome.message;
    EXPECT_FALSE(outcome.lost_peer);
  }
}

TEST_F(TrainHealth, no_checkpoint_is_begun_from_replicas_that_differ) {
  TrainConfig saving = config();
  saving.compare_every = 0;
  const HealthWorld world = run(saving, 3, R"({"rank": 2, "step": 7, "what": "weight", "bit": 3})");
  EXPECT_NE(world.outcomes[2].message.find("step 8: "), std::string::npos) << world.outcomes[2].message;
  EXPECT_EQ(world.outcomes[2].exit_code, exit_code::kReplaceNode);
  // That of step 4 may or may not have been complete when all ended.
  const HealthWorld again = run(saving, 3, "");
  EXPECT_EQ(again.outcomes[0].exit_code, 0) << again.outcomes[0].message;
  EXPECT_EQ(again.printed.find("resuming from step 8"), std::string::npos) << again.printed;
}

TEST(LaneEngine, the_device_holds_the_optimizer_back_and_the_host_waits_for_neither) {
  std::mutex mutex;
  std::condition_variable changed;
  bool blocked = false;
  CpuDeviceOptions device;
  device.before_work = [&](const std::string&) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return !blocked; });
  };
  const auto block = [&](bool value) {
    {
      std::lock_guard lock(mutex);
      blocked = value;
    }
    changed.notify_all();
  };
  const auto plan = LanePlan::make(2, 1, 1);
  uint64_t queued = 0;
  std::atomic<uint64_t> reached = 0;
  EngineSettings settings{{.kind = ModelKind::kLlama,
                           .layers = 1,
                           .width = 16,
                           .heads = 2,
                           .kv_heads = 2,
                           .mlp = 32,
                           .vocab = 256,
                           .context = 8},
                          8,
                          *plan};
  settings.queued = [&](uint64_t number) { queued = number; };
  settings.reached = [&](uint64_t number) { reached = number; };
  auto engine = LaneEngine::create_on_cpu(std::move(settings), std::move(device));
  ASSERT_TRUE(engine.ok());
  MemoryGroup group(1);
  const auto comm = group.take(0);
  GradientReducer reducer(*comm, *plan);
  (*engine)->init(1);
  const auto before = (*engine)->state_digests();
  const std::vector<int32_t> tokens(2 * 9, 65);
  for (const double limit : {0.0, 1e9}) {
    ASSERT_TRUE((*engine)->compute(tokens).ok());
    ASSERT_TRUE((*engine)->reduce(reducer).ok());
    block(true);
    (*engine)->update(16, 1, limit, {}, 1, [] {});
    // It came back although the device stands still, and that shows.
    EXPECT_LT(reached, queued);
    block(false);
    EXPECT_EQ((*engine)->updated().finite, limit > 0 ? 1u : 0u);
    EXPECT_EQ((*engine)->state_digests() == before, limit == 0);
    EXPECT_EQ(reached, queued);
  }
}

TEST(ReplicaCheck, the_minority_is_named_and_halves_are_told_apart_by_their_values) {
  const std::vector<std::string> names{"a", "b"};
  EXPECT_FALSE(find_difference({{1, 2}, {1, 2}}, {}, names));
  EXPECT_EQ(find_difference({{1, 2}, {1, 2}, {1, 3}}, {}, names)->odd, std::vector<uint32_t>{2});
  EXPECT_EQ(find_difference({{1, 2}, {1, 3}}, {4, 4.1}, names)->odd, std::vector<uint32_t>{});
  EXPECT_EQ(find_difference({{1, 2}, {1, 3}}, {1e30, 4.1}, names)->odd, std::vector<uint32_t>{0});
  EXPECT_EQ(find_difference({{1, 2}, {1, 3}}, {4, NAN}, names)->odd, std::vector<uint32_t>{1});
  EXPECT_EQ(find_difference({{1, 2}, {1, 3}, {1, 2}, {1, 3}}, {4, 9e9, 4, 9e9}, names)->odd,
            (std::vector<uint32_t>{1, 3}));
  EXPECT_NE(find_difference({{1, 2}, {1, 3}}, {}, names)->message.find("the first is b"), std::string::npos);
}

TEST(SpikeRule, nothing_is_judged_before_there_is_a_history_and_a_loss_must_be_worse_than_guessing) {
  SpikeRule rule({.loss = 3, .norm = 1000}, 256);
  for (size_t i = 0; i + 1 < SpikeRule::kFewest; ++i) rule.add(2, 0.5);
  EXPECT_TRUE(std::isinf(rule.loss_limit()));
  rule.add(2, 0.5);
  EXPECT_DOUBLE_EQ(rule.loss_limit(), 6);
  EXPECT_DOUBLE_EQ(rule.norm_limit(), 500);
  for (size_t i = 0; i < SpikeRule::kWindow; ++i) rule.add(0.1, 0.5);
  EXPECT_DOUBLE_EQ(rule.loss_limit(), std::log(256.0));
  SpikeRule off({.loss = 0, .norm = 0}, 256);
  for (size_t i = 0; i < SpikeRule::kWindow; ++i) off.add(0.1, 0.5);
  EXPECT_TRUE(std::isinf(off.loss_limit()));
  EXPECT_TRUE(std::isinf(off.norm_limit()));
}

TEST(SpikeRule, goes_on_from_a_checkpoint_as_if_it_had_never_stopped) {
  SpikeRule rule({}, 256), resumed({}, 256);
  for (int i = 0; i < 50; ++i) rule.add(5 - 0.0123 * i, 1.0 / (i + 1));
  ASSERT_TRUE(resumed.restore(Json::parse(rule.state().dump())).ok());
  EXPECT_EQ(resumed.loss_limit(), rule.loss_limit());
  EXPECT_EQ(resumed.norm_limit(), rule.norm_limit());
  EXPECT_FALSE(resumed.restore(Json()).ok());
  EXPECT_TRUE(std::isinf(resumed.loss_limit()));
}

// What the rule finds after so many rounds of ten steps.
template <typename Rounds>
std::optional<Straggler> found_after(size_t rounds, const Rounds& times) {
  StragglerRule rule;
  for (size_t i = 0; i < rounds; ++i) rule.add(times(i), 10);
  return rule.find();
}

TEST(StepMeter, the_rank_that_holds_the_others_up_is_named_and_waiting_for_it_is_not_held_against_them) {
  // data, compute, exchange, optimizer, stall; over ten steps
  const StepTimes usual{0.01, 1.0, 0.9, 0.2, 0}, slow{0.01, 1.9, 0, 0.2, 0};
  const auto found = found_after(8, [&](size_t) { return std::vector<StepTimes>{usual, usual, slow, usual}; });
  ASSERT_TRUE(found);
  EXPECT_EQ(found->rank, 2u);
  EXPECT_NEAR(found->factor, 2.11 / 1.21, 1e-9);
  EXPECT_NE(found->message.find("rank 2 holds the others up: 211.0 ms"), std::string::npos) << found->message;
  EXPECT_NE(found->message.find("in 8 of the last 8 rounds, 80 steps"), std::string::npos) << found->message;
  EXPECT_TRUE(found_after(8, [&](size_t) { return std::vector<StepTimes>{usual, slow}; }));
  EXPECT_FALSE(found_after(7, [&](size_t) { return std::vector<StepTimes>{usual, slow}; })) << "too early to say";
  EXPECT_FALSE(found_after(8, [&](size_t) { return std::vector<StepTimes>{usual, usual, usual}; }));
  EXPECT_FALSE(found_after(8, [&](size_t) { return std::vector<StepTimes>{slow}; }));
}

// Steps of `ms` of each rank's own; what the slowest takes longer the others wait.
std::vector<StepTimes> ten_steps(const std::vector<double>& ms) {
  const double longest = *std::max_element(ms.begin(), ms.end());
  std::vector<StepTimes> ranks;
  for (const double own : ms) ranks.push_back({0, own / 100, (longest - own + 1) / 100, 0, 0});
  return ranks;
}

TEST(StragglerRule, one_long_pause_of_a_machine_makes_no_straggler_of_its_rank) {
  // By its mean over all steps rank 1 takes four times as long as the others.
  EXPECT_FALSE(found_after(8, [](size_t i) { return ten_steps({100, i == 2 ? 2500.0 : 100.0, 100}); }));
  EXPECT_FALSE(found_after(20, [](size_t i) { return ten_steps({100, i % 4 == 0 ? 900.0 : 100.0, 100}); }));
}

TEST(StragglerRule, on_a_noisy_machine_nobody_is_named_who_is_not_slow_himself) {
  std::mt19937 random(7);
  std::exponential_distribution<double> noise(1.0 / 60);  // as much as the work itself, now here, now there
  StragglerRule rule;
  for (size_t i = 0; i < 2000; ++i) {
    rule.add(ten_steps({100 + noise(random), 100 + noise(random), 100 + noise(random), 100 + noise(random)}), 10);
    EXPECT_FALSE(rule.find()) << rule.find()->message << " in round " << i;
  }
}

TEST(StragglerRule, of_two_ranks_alike_hardly_ever_is_one_named_for_noise) {
  std::mt19937 random(3);
  std::exponential_distribution<double> noise(1.0 / 60);
  StragglerRule rule;
  size_t named = 0;
  for (size_t i = 0; i < 5000; ++i) {
    rule.add(ten_steps({100 + noise(random), 100 + noise(random)}), 10);
    named += rule.find() ? 1 : 0;
  }
  EXPECT_LT(named, 50u);
}

TEST(StragglerRule, under_noise_the_slow_rank_is_the_one_that_is_named) {
  std::mt19937 random(11);
  std::exponential_distribution<double> noise(1.0 / 40);
  StragglerRule rule;
  size_t named = 0;
  for (size_t i = 0; i < 500; ++i) {
    rule.add(ten_steps({100 + noise(random), 100 + noise(random), 100 + noise(random), 250 + noise(random)}), 10);
    const auto found = rule.find();
    if (!found) continue;
    ++named;
    EXPECT_EQ(found->rank, 3u) << found->message;
    EXPECT_NEAR(found->factor, 250.0 / 120, 0.5);
  }
  EXPECT_GT(named, 450u);
}

TEST(StragglerRule, short_steps_are_judged_over_seconds_not_over_steps) {
  // Of 8 ms. For two seconds, fifty steps, another program runs beside rank 0, though rank 1 is the slow one otherwise.
  const auto rounds = [](size_t i) { return ten_steps({i >= 300 && i < 305 ? 40.0 : 4.0, 8}); };
  for (size_t after = 300; after <= 600; after += 5) {
    if (const auto found = found_after(after, rounds)) {
      EXPECT_EQ(found->rank, 1u) << found->message;
    }
  }
  EXPECT_TRUE(found_after(300, rounds));
  EXPECT_TRUE(found_after(600, rounds));
}

TEST(StragglerRule, a_rank_that_is_well_again_is_named_no_more) {
  const auto rounds = [](size_t i) { return ten_steps({100, i < 20 ? 200.0 : 100.0}); };
  EXPECT_TRUE(found_after(20, rounds));
  EXPECT_TRUE(found_after(22, rounds));
  EXPECT_FALSE(found_after(23, rounds));
}

TEST(StepMeter, mfu_is_the_models_flops_over_the_peak_and_absent_where_that_is_unknown) {
  page::Writer page;
  StepMeter meter({.tokens_per_step = 1000, .flops_per_token = 5e9, .peak_flops = 1e13});
  meter.add(StepPart::kStall, milliseconds(20));
  const StepMeasure measure = meter.finish(2, page);
  EXPECT_DOUBLE_EQ(measure.tokens_per_second, 500);
  EXPECT_DOUBLE_EQ(*measure.mfu, 0.25);
  EXPECT_DOUBLE_EQ(measure.stall, 0.02);
  EXPECT_GT(measure.memory, 0u);
  EXPECT_FALSE(StepMeter({.tokens_per_step = 1000, .flops_per_token = 5e9}).finish(2, page).mfu);
  EXPECT_EQ(peak_tflops("NVIDIA H200"), 989.5);
  EXPECT_EQ(peak_tflops("NVIDIA A100-SXM4-80GB"), 312);
  EXPECT_FALSE(peak_tflops("A GPU of tomorrow"));
}

}  // namespace
}  // namespace pitcrew::trainer
