#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/environment.hpp"
#include "lib/base/json.hpp"
#include "lib/base/progress_page.hpp"
#include "trainer/app/config_file.hpp"
#include "trainer/app/fake_launcher.hpp"
#include "trainer/app/messages.hpp"
#include "trainer/comm/tcp_socket.hpp"

namespace pitcrew::trainer {
namespace {

namespace fs = std::filesystem;

// A pitcrew-train process. Killed and reaped by the destructor.
class Process {
 public:
  Process(const std::vector<std::string>& arguments, const std::map<std::string, std::string>& variables,
          const std::string& output)
      : output_(output) {
    pid_ = fork();
    if (pid_ != 0) return;
    const int fd = open(output.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    dup2(fd, 1);
    dup2(fd, 2);
    for (const auto& [name, value] : variables) setenv(name.c_str(), value.c_str(), 1);
    std::vector<char*> argv{const_cast<char*>("pitcrew-train")};
    for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    execv(PITCREW_BIN_DIR "/pitcrew-train", argv.data());
    _exit(127);
  }
  Process(Process&& other) noexcept : pid_(std::exchange(other.pid_, -1)), output_(other.output_) {}
  ~Process() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }

  void kill(int signal) const { ::kill(pid_, signal); }
  // The exit code, or 128 + the signal.
  int wait() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  std::string output() const {
    std::ifstream file(output_);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  bool running() const {
    siginfo_t ended{};
    waitid(P_PID, static_cast<id_t>(pid_), &ended, WEXITED | WNOHANG | WNOWAIT);
    return ended.si_pid == 0;
  }
  // Until its output has the text; the test's own time limit ends a wait that never does.
  void wait_for(const std::string& text) const {
    while (output().find(text) == std::string::npos) {
      if (!running()) break;
      poll(nullptr, 0, 5);
    }
  }

 private:
  pid_t pid_ = -1;
  std::string output_;
};

class TrainProgram : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "pitcrew-app-XXXXXX").string();
    folder_ = mkdtemp(name.data());
    std::ofstream text(folder_ + "/text.txt");
    for (int i = 0; i < 400; ++i) text << "line " << i * i << " of the text;";
    std::ofstream(folder_ + "/tiny.yaml")
        << "model: {kind: llama, layers: 1, width: 16, heads: 2, mlp: 32, vocab: 256, context: 8}\n"
           "batch: {sequences: 8, micro: 1}\n"
           "steps: 30\n"
           "optimizer: {learningRate: 1e-2}\n"
           "schedule: {warmup: 3}\n"
           "data: {text: {paths: [text.txt]}, heldOut: 4}\n"
           "checkpoint: {path: ck, every: {steps: 5}}\n"
           "log: {every: 1}\n";
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::vector<Process> start(uint32_t ranks, const std::string& checkpoints, std::vector<std::string> sets = {},
                             std::map<std::string, std::string> variables = {}) {
    variables["MASTER_ADDR"] = "127.0.0.1";
    variables["MASTER_PORT"] = std::to_string(local_address(*listen_at(*Address::parse("127.0.0.1", 0)))->port());
    variables["WORLD_SIZE"] = variables["LOCAL_WORLD_SIZE"] = std::to_string(ranks);
    std::vector<std::string> arguments{folder_ + "/tiny.yaml", "--set",
                                       "checkpoint.path=" + folder_ + "/" + checkpoints};
    for (const std::string& set : sets) {
      arguments.push_back("--set");
      arguments.push_back(set);
    }
    std::vector<Process> processes;
    ++started_;
    for (uint32_t rank = 0; rank < ranks; ++rank) {
      variables["RANK"] = variables["LOCAL_RANK"] = std::to_string(rank);
      processes.emplace_back(arguments, variables,
                             folder_ + "/out." + std::to_string(started_) + "." + std::to_string(rank));
    }
    return processes;
  }
  void expect_done(std::vector<Process>& processes) {
    for (Process& process : processes) {
      const int code = process.wait();
      EXPECT_EQ(code, 0) << process.output();
    }
  }
  // The step log without epochs.
  std::string log(const std::string& checkpoints) const {
    std::ifstream file(folder_ + "/" + checkpoints + "/steps.jsonl");
    std::string all;
    for (std::string line; std::getline(file, line);) {
      const size_t from = line.find(",\"epoch\":"), to = line.find(",\"samples\"");
      const size_t times = std::min(line.find(",\"seconds\":"), line.size() - 1);  // nor the times
      all += line.substr(0, from) + line.substr(to, times - to) + "\n";
    }
    return all;
  }

  std::string folder_;
  int started_ = 0;
};

TEST_F(TrainProgram, says_all_as_json_with_job_epoch_rank_and_step_on_request) {
  const std::map<std::string, std::string> variables{
      {"PITCREW_JOB", R"({"uid":"u1","namespace":"team-a","name":"llama","term":1})"}, {"PITCREW_EPOCH", "7"}};
  auto ranks = start(2, "json", {"log.format=json"}, variables);
  expect_done(ranks);
  std::istringstream lines(ranks[0].output());
  std::set<uint64_t> steps;
  for (std::string line; std::getline(lines, line);) {
    const auto json = parse_json(line);
    ASSERT_TRUE(json) << line;
    EXPECT_EQ(json->value("program", ""), "pitcrew-train");
    EXPECT_EQ(json->value("namespace", "") + "/" + json->value("job", ""), "team-a/llama");
    EXPECT_EQ(json->value("epoch", 0), 7);
    EXPECT_EQ(json->value("rank", 9), 0);
    EXPECT_TRUE(json->contains("time") && json->contains("level") && json->contains("message")) << line;
    if (json->contains("step")) steps.insert(json->at("step").get<uint64_t>());
  }
  EXPECT_TRUE(steps.contains(30)) << ranks[0].output();
  auto other = start(1, "other", {"log.format=xml"});
  EXPECT_EQ(other[0].wait(), 64);
  EXPECT_NE(other[0].output().find("log.format"), std::string::npos) << other[0].output();
}

TEST(StepOf, a_message_is_the_number_behind_the_word) {
  EXPECT_EQ(step_of("saved durable checkpoint of step 12, 1.7 MB"), 12u);
  EXPECT_EQ(step_of("step 3 loss 1.2"), 3u);
  EXPECT_EQ(step_of("a step is slow at step 9"), 9u);
  EXPECT_FALSE(step_of("misstep 4"));
  EXPECT_FALSE(step_of("420 steps"));
}

TEST_F(TrainProgram, one_process_two_and_four_with_shards_over_tcp_give_the_same_losses_bit_for_bit) {
  auto one = start(1, "one");
  expect_done(one);
  auto two = start(2, "two");
  expect_done(two);
  const std::string expected = log("one");
  EXPECT_EQ(std::count(expected.begin(), expected.end(), '\n'), 31);
  EXPECT_EQ(log("two"), expected);
  auto shards = start(4, "shards", {"parallel.shards=2"});
  expect_done(shards);
  EXPECT_EQ(log("shards"), expected);
  EXPECT_NE(shards[0].output().find("2 replicas x 2 shards"), std::string::npos) << shards[0].output();
}

TEST_F(TrainProgram, a_run_whose_rank_is_killed_goes_on_from_its_checkpoint_bit_for_bit) {
  auto whole = start(1, "whole");
  expect_done(whole);
  {
    auto killed = start(2, "killed", {"steps=30", "log.every=1"});
    killed[0].wait_for("saved durable checkpoint of step 10");
    killed[1].kill(SIGKILL);
    EXPECT_EQ(killed[1].wait(), 128 + SIGKILL);
    // Unless it had been through already, it says whom it lost and asks to be tried again.
    const int code = killed[0].wait();
    if (code != 0) {
      EXPECT_EQ(code, exit_code::kTryAgain) << killed[0].output();
      EXPECT_NE(killed[0].output().find("rank 1 is gone"), std::string::npos) << killed[0].output();
    }
  }
  auto resumed = start(2, "killed");
  expect_done(resumed);
  EXPECT_NE(resumed[0].output().find("resuming from step "), std::string::npos) << resumed[0].output();
  EXPECT_EQ(log("killed"), log("whole"));
}

TEST_F(TrainProgram, when_one_of_eight_is_killed_exactly_one_rank_is_blamed) {
  const std::string page_path = folder_ + "/page";
  auto page = page::Watcher::create(page_path, 8, {Term(0), EpochNumber(0)});
  ASSERT_TRUE(page.ok());
  auto ranks = start(8, "eight", {"steps=100000", "checkpoint.every.steps=100000"}, {{"PITCREW_PROGRESS", page_path}});
  ranks[0].wait_for("step 3/");
  ranks[6].kill(SIGKILL);
  for (uint32_t rank = 0; rank < 8; ++rank) {
    const int code = ranks[rank].wait();
    if (rank == 6) continue;
    EXPECT_EQ(code, exit_code::kTryAgain);
    const std::string output = ranks[rank].output();
    EXPECT_NE(output.find("rank " + std::to_string(rank) + ": rank 6 is gone"), std::string::npos) << output;
    EXPECT_EQ(page->line(rank).phase, page::Phase::kLostPeer);
  }
}

TEST_F(TrainProgram, a_rank_that_lost_a_peer_tells_its_launcher_and_waits_to_be_ended) {
  FakeLauncher launcher(folder_ + "/launcher");
  auto ranks = start(3, "waiting", {"steps=100000"},
                     {{"PITCREW_LAUNCHER", folder_ + "/launcher"}, {"PITCREW_RANK_LOGS", folder_}});
  ranks[0].wait_for("step 3/");
  ranks[2].kill(SIGKILL);
  const launcher_socket::Evidence evidence = launcher.wait_for_evidence();
  EXPECT_EQ(evidence.kind, "lost-peer");
  EXPECT_EQ(evidence.peer, Rank(2));
  // The last collectives are in its log, and in a file beside it.
  const uint32_t rank = evidence.rank.value;
  std::ifstream file(folder_ + "/rank-" + std::to_string(rank) + ".collectives.log");
  const std::string collectives{std::istreambuf_iterator<char>(file), {}};
  EXPECT_NE(collectives.find("failed after"), std::string::npos) << collectives;
  EXPECT_NE(ranks[rank].output().find("last collectives:\n" + collectives), std::string::npos) << ranks[rank].output();
  ranks[2].wait();
  EXPECT_TRUE(ranks[0].running());
  EXPECT_TRUE(ranks[1].running());
  for (const int rank : {0, 1}) {
    ranks[static_cast<size_t>(rank)].kill(SIGKILL);
    EXPECT_EQ(ranks[static_cast<size_t>(rank)].wait(), 128 + SIGKILL);
  }
}

TEST_F(TrainProgram, sigterm_to_one_rank_saves_and_ends_all_with_0) {
  auto ranks = start(2, "stopped", {"steps=100000"});
  ranks[0].wait_for("step 3/");
  ranks[1].kill(SIGTERM);
  expect_done(ranks);
  const std::string output = ranks[0].output();
  const size_t at = output.find("stopped at step ");
  ASSERT_NE(at, std::string::npos) << output;
  const std::string step = output.substr(at + 16, output.find('\n', at) - at - 16);
  EXPECT_NE(output.find("saved durable checkpoint of step " + step), std::string::npos) << output;
}

TEST_F(TrainProgram, the_pages_words_save_and_stop_and_its_phase_says_done) {
  const std::string page_path = folder_ + "/page";
  auto page = page::Watcher::create(page_path, 1, {Term(0), EpochNumber(0)});
  ASSERT_TRUE(page.ok());
  auto first = start(1, "paged", {"steps=100000", "checkpoint.every.steps=100000"}, {{"PITCREW_PROGRESS", page_path}});
  first[0].wait_for("step 2/");
  page->request_save();
  first[0].wait_for("saved durable checkpoint");
  EXPECT_EQ(page->header().total_steps, 100000u);
  page->request_stop();
  EXPECT_EQ(first[0].wait(), 0) << first[0].output();
  EXPECT_NE(page->line(0).phase, page::Phase::kDone);

  auto page2 = page::Watcher::create(page_path, 1, {Term(0), EpochNumber(1)});
  auto second = start(1, "done", {"peakTflops=0.1"}, {{"PITCREW_PROGRESS", page_path}});
  expect_done(second);
  std::map<std::string, double> gauges;
  for (const auto& [name, value] : page2->gauges(0)) gauges[name] = value;
  for (const char* name : {"tokens_per_second", "mfu", "memory_bytes", "compute_seconds", "gradient_norm"})
    EXPECT_GT(gauges[name], 0) << name;
  EXPECT_LT(gauges["mfu"], 1);
  for (const char* name : {"data_wait_seconds", "stall_seconds", "exchange_seconds", "optimizer_seconds"})
    EXPECT_TRUE(gauges.contains(name)) << name;
  EXPECT_EQ(page2->line(0).gpu_behind(), false);
  EXPECT_GT(page2->line(0).gpu_counter, 30u);
  EXPECT_EQ(page2->line(0).phase, page::Phase::kDone);
  EXPECT_EQ(page2->line(0).step, Step(30));
  EXPECT_EQ(page2->line(0).samples, 240u);
}

TEST_F(TrainProgram, a_backtrace_of_every_thread_is_written_on_a_signal) {
  auto ranks = start(1, "traced", {"steps=100000"});
  ranks[0].wait_for("step 2/");
  ranks[0].kill(SIGUSR2);
  ranks[0].wait_for("=== end of backtraces ===");
  const std::string output = ranks[0].output();
  EXPECT_NE(output.find("=== backtraces of rank 0 ==="), std::string::npos);
  size_t threads = 0;
  for (size_t at = 0; (at = output.find("--- thread ", at)) != std::string::npos; ++at) ++threads;
  EXPECT_GE(threads, 3u) << output;
  EXPECT_NE(output.find("run_train"), std::string::npos) << output;
  ranks[0].wait_for("collective ");
  EXPECT_NE(ranks[0].output().find(" all_gather "), std::string::npos);
  ranks[0].kill(SIGTERM);
  EXPECT_EQ(ranks[0].wait(), 0) << ranks[0].output();
}

TEST_F(TrainProgram, sample_generates_the_same_text_for_the_same_seed) {
  auto trained = start(1, "sampled");
  expect_done(trained);
  const auto sample = [&](const std::string& seed) {
    Process process({"sample", folder_ + "/sampled", "--prompt", "line", "--tokens", "20", "--seed", seed}, {},
                    folder_ + "/sample." + seed + std::to_string(++started_));
    EXPECT_EQ(process.wait(), 0) << process.output();
    return process.output();
  };
  const std::string once = sample("1");
  EXPECT_EQ(once.substr(0, 4), "line");
  EXPECT_EQ(sample("1"), once);
}

TEST_F(TrainProgram, an_imported_model_is_trained_and_exported_again) {
  const std::string golden = std::string(PITCREW_SOURCE_DIR) + "/tests/goldens/hugging_face/qwen3";
  Process import({"import", golden}, {}, folder_ + "/import");
  ASSERT_EQ(import.wait(), 0) << import.output();
  std::ofstream(folder_ + "/tiny.yaml") << import.output()
                                        << "batch: {sequences: 2, micro: 1, tokens: 8}\nsteps: 2\n"
                                           "data: {text: {paths: [text.txt]}}\ncheckpoint: {path: ck}\n";
  // The golden's vocabulary is smaller than text's 256 bytes: it is padded.
  auto trained = start(1, "imported", {"model.vocab=256", "model.vocabUsed=67"});
  EXPECT_EQ(trained[0].wait(), exit_code::kBadConfiguration);
  EXPECT_NE(trained[0].output().find("model.vocab"), std::string::npos) << trained[0].output();

  // Token files have any vocabulary: llm.c's version 1, 40 tokens of 16 bits.
  {
    std::ofstream bin(folder_ + "/tokens.bin", std::ios::binary);
    const int32_t header[256] = {20240520, 1, 40};
    bin.write(reinterpret_cast<const char*>(header), sizeof header);
    for (uint16_t i = 0; i < 40; ++i) {
      const auto token = static_cast<uint16_t>(i * 7 % 67);
      bin.write(reinterpret_cast<const char*>(&token), 2);
    }
  }
  auto run = start(1, "imported", {"data={bin: {paths: [tokens.bin]}}"});
  EXPECT_EQ(run[0].wait(), 0) << run[0].output();
  EXPECT_NE(run[0].output().find("weights from " + golden), std::string::npos) << run[0].output();
  Process exported({"export", folder_ + "/imported", folder_ + "/out", "--dtype", "bf16"}, {}, folder_ + "/export");
  EXPECT_EQ(exported.wait(), 0) << exported.output();
  Process again({"import", folder_ + "/out"}, {}, folder_ + "/again");
  EXPECT_EQ(again.wait(), 0) << again.output();
  const auto model = [](const std::string& text) { return text.substr(0, text.find("\ninit:")); };
  EXPECT_EQ(model(again.output()), model(import.output()));
}

TEST_F(TrainProgram, plan_prints_memory_without_a_gpu_and_says_what_does_not_fit) {
  Process plan({"plan", folder_ + "/tiny.yaml", "--grid", "4x2", "--gpu", "--memory", "80"}, {}, folder_ + "/plan");
  EXPECT_EQ(plan.wait(), 0) << plan.output();
  for (const char* line :
       {"8 ranks: 4 replicas x 2 shards x 1 tensor", "memory per rank", "gathered weights", "fits"}) {
    EXPECT_NE(plan.output().find(line), std::string::npos) << line << "\n" << plan.output();
  }
  Process small({"plan", folder_ + "/tiny.yaml", "--gpu", "--memory", "0.5"}, {}, folder_ + "/small");
  EXPECT_EQ(small.wait(), exit_code::kBadConfiguration);
  EXPECT_NE(small.output().find("the model does not fit"), std::string::npos) << small.output();
}

TEST_F(TrainProgram, the_examples_are_the_models_that_they_say) {
  // Parameters as the models' cards count them.
  const std::map<std::string, uint64_t> models = {
      {"llama3-8b", 8'030'261'248}, {"qwen2.5-32b", 32'763'876'352}, {"qwen3-0.6b", 596'049'920}};
  for (const auto& [name, parameters] : models) {
    const auto config = load_config(std::string(PITCREW_SOURCE_DIR) + "/examples/models/" + name + ".yaml", {});
    ASSERT_TRUE(config.ok()) << config.error().message;
    EXPECT_EQ(config->model.parameters(), parameters) << name;
    EXPECT_TRUE(config->checkpoint.every_auto);
  }
}

TEST_F(TrainProgram, without_the_gpu_library_device_cuda_says_what_is_missing) {
  auto refused = start(1, "cuda", {"device=cuda"});
  const int code = refused[0].wait();
  if (code == 0) GTEST_SKIP() << "here is a GPU, and its library";
  EXPECT_EQ(code, exit_code::kBadConfiguration) << refused[0].output();
  EXPECT_NE(refused[0].output().find("libpitcrew_cuda.so"), std::string::npos) << refused[0].output();
}

TEST_F(TrainProgram, a_bad_configuration_ends_with_64_and_says_where) {
  std::ofstream(folder_ + "/tiny.yaml", std::ios::app) << "evalution: {every: 3}\n";
  auto bad = start(1, "bad");
  EXPECT_EQ(bad[0].wait(), exit_code::kBadConfiguration);
  EXPECT_NE(bad[0].output().find("tiny.yaml:9: evalution: unknown field; did you mean 'evaluation'?"),
            std::string::npos)
      << bad[0].output();
}

TEST_F(TrainProgram, missing_data_end_with_65) {
  auto bad = start(1, "bad", {"data.text.paths=[nowhere.txt]"});
  EXPECT_EQ(bad[0].wait(), exit_code::kBadData);
}

TEST_F(TrainProgram, set_replaces_what_the_file_says) {
  const auto config = load_config(folder_ + "/tiny.yaml", {"batch.micro=2", "log.every=7", "checkpoint={path: x}"});
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(config->micro, 2u);
  EXPECT_EQ(config->log_every, 7u);
  EXPECT_EQ(config->checkpoint.path, folder_ + "/x");
  EXPECT_FALSE(load_config(folder_ + "/tiny.yaml", {"batch"}).ok());
  EXPECT_FALSE(load_config(folder_ + "/tiny.yaml", {"steps.x=1"}).ok());
}

}  // namespace
}  // namespace pitcrew::trainer
