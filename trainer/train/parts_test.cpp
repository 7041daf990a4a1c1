#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>

#include <gtest/gtest.h>
#include <stdlib.h>

#include "trainer/train/config.hpp"
#include "trainer/train/nonfinite.hpp"
#include "trainer/train/rank_environment.hpp"
#include "trainer/train/step_log.hpp"

namespace pitcrew::trainer {
namespace {

namespace fs = std::filesystem;

class StepLogTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "pitcrew-steps-XXXXXX").string();
    folder_ = mkdtemp(name.data());
  }
  void TearDown() override { fs::remove_all(folder_); }
  StepLog open(uint64_t resumed, uint64_t epoch) {
    auto log = StepLog::open(posix_file_system(), folder_ + "/ck", Step(resumed), EpochNumber(epoch));
    EXPECT_TRUE(log.ok()) << (log.ok() ? "" : log.error().message);
    return std::move(*log);
  }
  std::string text() const {
    std::ifstream file(folder_ + "/ck/steps.jsonl");
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::string folder_;
};

TEST_F(StepLogTest, lines_have_the_loss_as_decimal_and_as_bits) {
  StepLog log = open(0, 3);
  ASSERT_TRUE(log.append(Step(1), 2.5, 8, {0.25, 65300, 0.001, 0, 4096, 0.52}).ok());
  ASSERT_TRUE(log.append_evaluation(Step(1), 0.1, 64).ok());
  EXPECT_EQ(
      text(),
      "{\"step\":1,\"loss\":2.5,\"bits\":\"4004000000000000\",\"epoch\":3,\"samples\":8,\"seconds\":0.25,"
      "\"tokensPerSecond\":6.53e+04,\"dataWait\":0.001,\"stall\":0,\"memory\":4096,\"mfu\":0.52}\n"
      "{\"step\":1,\"kind\":\"evaluation\",\"loss\":0.1,\"bits\":\"3fb999999999999a\",\"epoch\":3,\"samples\":64}\n");
}

TEST_F(StepLogTest, an_epoch_that_resumes_cuts_off_what_came_after_even_from_a_torn_file) {
  {
    StepLog log = open(0, 1);
    for (uint64_t step = 1; step <= 5; ++step) ASSERT_TRUE(log.append(Step(step), 1, step, {}).ok());
    ASSERT_TRUE(log.append_evaluation(Step(5), 1, 1).ok());
  }
  std::ofstream(folder_ + "/ck/steps.jsonl", std::ios::app) << "{\"step\":6,\"lo";
  StepLog log = open(3, 2);
  EXPECT_EQ(log.gap(), "");
  ASSERT_TRUE(log.append(Step(4), 2, 4, {}).ok());
  const std::string now = text();
  EXPECT_EQ(std::count(now.begin(), now.end(), '\n'), 4);
  EXPECT_NE(now.find("{\"step\":4,\"loss\":2.0"), std::string::npos);
  EXPECT_EQ(now.find("evaluation"), std::string::npos);
}

TEST_F(StepLogTest, a_writer_of_an_older_epoch_can_no_longer_change_it) {
  StepLog zombie = open(0, 1);
  ASSERT_TRUE(zombie.append(Step(1), 1, 1, {}).ok());
  StepLog log = open(1, 2);
  ASSERT_TRUE(zombie.append(Step(2), 7, 2, {}).ok());
  ASSERT_TRUE(log.append(Step(2), 2, 2, {}).ok());
  EXPECT_EQ(text().find("7.0"), std::string::npos);
}

TEST_F(StepLogTest, steps_that_are_missing_are_said) {
  { ASSERT_TRUE(open(0, 1).append(Step(1), 1, 1, {}).ok()); }
  EXPECT_NE(open(3, 2).gap().find("steps 2 to 3 are missing"), std::string::npos);
}

TEST_F(StepLogTest, the_second_time_with_the_same_bits_is_recognised) {
  const NonfiniteStep step{Step(4), "a", "b"};
  EXPECT_FALSE(*note_nonfinite(posix_file_system(), folder_ + "/new", step));
  EXPECT_TRUE(*note_nonfinite(posix_file_system(), folder_ + "/new", step));
  EXPECT_FALSE(*note_nonfinite(posix_file_system(), folder_ + "/new", {Step(4), "a", "c"}));
  EXPECT_FALSE(*note_nonfinite(posix_file_system(), "", step));
}

Json minimal() {
  return Json::parse(R"({"model": {"kind": "llama", "layers": 1, "width": 16, "heads": 2, "vocab": 256, "context": 8},
    "batch": {"sequences": 8, "micro": 2}, "steps": 100, "data": {"text": {"paths": ["a.txt", "/b"]}}})");
}

TEST(TrainConfig, defaults_are_filled_in_and_relative_paths_belong_to_the_file) {
  Problems problems;
  const auto config = read_train_config(minimal(), "/work", problems);
  ASSERT_TRUE(config) << join(problems);
  EXPECT_EQ(config->tokens, 8u);
  EXPECT_EQ(config->text->paths, (std::vector<std::string>{"/work/a.txt", "/b"}));
  EXPECT_EQ(config->threads, 1u);
}

TEST(TrainConfig, every_problem_is_reported_with_its_path_and_remedy) {
  Json json = minimal();
  json["batch"] = {{"sequences", 8}, {"micro", 3}, {"tokens", 9}};
  json["optimizer"] = {{"learnRate", 1}, {"beta1", 2}};
  json["schedule"] = {{"warmup", 100}};
  json["data"]["bin"] = {{"paths", Json::array({"x"})}};
  json["evaluation"] = {{"every", 5}};
  json["checkpoint"] = {{"every", {{"steps", 5}, {"time", "1m"}}}};
  Problems problems;
  EXPECT_FALSE(read_train_config(Json::parse(json.dump()), "", problems));
  const std::string all = join(problems);
  for (const char* expected : {"batch.micro: 3 does not divide sequences 8",
                               "batch.tokens: 9 is more than model.context 8", "optimizer.learnRate: unknown field",
                               "optimizer.beta1: must be between", "schedule.warmup: must be below steps 100",
                               "data: must have either text or bin", "evaluation.every: needs samples to evaluate",
                               "checkpoint.every: must have one of steps, time and auto: true"}) {
    EXPECT_NE(all.find(expected), std::string::npos) << expected << " in: " << all;
  }
}

TEST(TrainConfig, attention_is_chosen_by_name_and_cudnn_needs_a_gpu) {
  const auto read = [](const Json& change) {
    Json json = minimal();
    json.update(change);
    Problems problems;
    auto config = read_train_config(Json::parse(json.dump()), "", problems);
    return std::pair(std::move(config), join(problems));
  };
  EXPECT_FALSE(read(Json::object()).first->attention);
  EXPECT_FALSE(read({{"attention", "auto"}}).first->attention);
  EXPECT_EQ(read({{"attention", "own"}, {"device", "cpu"}}).first->attention, AttentionEngine::kOwn);
  EXPECT_EQ(read({{"attention", "cudnn"}}).first->attention, AttentionEngine::kCudnn);
  EXPECT_NE(read({{"attention", "flash"}}).second.find("attention"), std::string::npos);
  EXPECT_NE(read({{"attention", "cudnn"}, {"device", "cpu"}}).second.find("cudnn needs a GPU, but device is cpu"),
            std::string::npos);
}

TEST(TrainConfig, the_fingerprint_knows_what_weights_depend_on_and_nothing_else) {
  const auto hash_with = [](const char* pointer, const Json& value) {
    Json json = minimal();
    json[Json::json_pointer(pointer)] = value;
    Problems problems;
    const auto config = read_train_config(Json::parse(json.dump()), "", problems);
    EXPECT_TRUE(config) << join(problems);
    return run_hash(*config);
  };
  const std::string base = hash_with("/seed", 1);
  EXPECT_EQ(hash_with("/log", Json{{"every", 3}}), base);
  EXPECT_EQ(hash_with("/checkpoint", Json{{"path", "/x"}}), base);
  EXPECT_EQ(hash_with("/threads", 2), base);
  EXPECT_NE(hash_with("/seed", 2), base);
  EXPECT_NE(hash_with("/optimizer", Json{{"beta1", 0.8}}), base);
  EXPECT_NE(hash_with("/steps", 200), base);
}

TEST(LearningRate, it_warms_up_and_falls_along_half_a_cosine) {
  TrainConfig config;
  config.optimizer.learning_rate = 1;
  config.steps = 110;
  config.warmup = 10;
  config.decay_to = 0.2;
  EXPECT_DOUBLE_EQ(learning_rate(config, 1), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(config, 10), 1);
  EXPECT_NEAR(learning_rate(config, 60), 0.6, 1e-12);
  EXPECT_NEAR(learning_rate(config, 110), 0.2, 1e-12);
  EXPECT_NEAR(learning_rate(config, 500), 0.2, 1e-12);
}

Result<RankEnvironment> read(std::map<std::string, std::string> variables) {
  return read_rank_environment([&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

TEST(RankEnvironment, without_variables_it_is_a_run_of_its_own) {
  const auto environment = read({});
  ASSERT_TRUE(environment.ok());
  EXPECT_EQ(environment->size, 1u);
  EXPECT_FALSE(environment->managed);
}

TEST(RankEnvironment, torchruns_and_the_launchers_variables_are_read) {
  const auto environment = read({{"RANK", "5"},
                                 {"WORLD_SIZE", "8"},
                                 {"LOCAL_RANK", "1"},
                                 {"LOCAL_WORLD_SIZE", "2"},
                                 {"MASTER_ADDR", "10.0.0.3"},
                                 {"MASTER_PORT", "29500"},
                                 {"PITCREW_JOB", R"({"uid":"u","namespace":"n","name":"j","term":4})"},
                                 {"PITCREW_EPOCH", "7"},
                                 {"PITCREW_RESUME", R"({"step":40,"claim":2,"place":"memory"})"},
                                 {"PITCREW_CHECKPOINT", R"({"path":"/ck","keep":2})"},
                                 {"PITCREW_MEMORY", "/mem"}});
  ASSERT_TRUE(environment.ok()) << environment.error().message;
  EXPECT_EQ(environment->slot, Slot(2));
  EXPECT_TRUE(environment->managed);
  EXPECT_EQ(environment->epoch, EpochNumber(7));
  EXPECT_EQ(environment->resume->step, Step(40));
  EXPECT_EQ(environment->checkpoint->keep, 2u);
  EXPECT_EQ(environment->memory, "/mem");
}

TEST(RankEnvironment, what_is_wrong_names_the_variable) {
  const auto environment = read({{"RANK", "two"}, {"WORLD_SIZE", "4"}, {"LOCAL_RANK", "3"}, {"MASTER_PORT", "99999"}});
  ASSERT_FALSE(environment.ok());
  for (const char* expected :
       {"RANK: 'two' is not a number", "LOCAL_RANK: must be below LOCAL_WORLD_SIZE", "MASTER_PORT: '99999'"}) {
    EXPECT_NE(environment.error().message.find(expected), std::string::npos) << environment.error().message;
  }
}

}  // namespace
}  // namespace pitcrew::trainer
