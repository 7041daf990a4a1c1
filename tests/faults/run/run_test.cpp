#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <sstream>

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/json.hpp"
#include "lib/base/random.hpp"

namespace pitcrew {
namespace {

namespace fs = std::filesystem;

constexpr char kTrain[] = R"(
model: {kind: llama, layers: 2, width: 96, heads: 2, mlp: 256, vocab: 256, context: 96}
batch: {sequences: 8, micro: 2}
steps: 600
seed: 3
optimizer: {learningRate: 3e-3, weightDecay: 0.1, clip: 1.0}
schedule: {warmup: 10, decayTo: 0.1}
data: {text: {paths: [text]}}
threads: 1
log: {every: 50}
)";

constexpr char kJob[] = R"(
apiVersion: pitcrew.dev/v1alpha1
kind: TrainingJob
metadata: {name: tiny}
spec:
  replicas: 2
  spares: 1
  template:
    spec:
      containers:
        - name: train
          command: [pitcrew-train, FOLDER/train.yaml]
          volumeMounts: [{name: shared, mountPath: /checkpoints}]
      volumes: [{name: shared, persistentVolumeClaim: {claimName: shared}}]
  checkpoint: {path: /checkpoints/tiny, every: {steps: 50}, memory: {every: {steps: 10}, copies: 1}}
)";

std::string contents(const fs::path& file) {
  std::ifstream in(file);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

bool marked(pid_t pid, const std::string& mark) {
  const std::string environment = contents("/proc/" + std::to_string(pid) + "/environ");
  return environment.find(mark) != std::string::npos;
}

// Every living process that belongs to some pitcrew run in this folder: its environment or its arguments name it.
std::vector<pid_t> processes_of(const std::string& folder) {
  std::vector<pid_t> found;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const pid_t pid = static_cast<pid_t>(std::strtol(entry.path().filename().c_str(), nullptr, 10));
    if (pid <= 1 || pid == getpid()) continue;
    if (contents(entry.path() / "cmdline").empty()) continue;  // a zombie, or of the kernel
    if (marked(pid, folder + "/") || contents(entry.path() / "cmdline").find(folder) != std::string::npos)
      found.push_back(pid);
  }
  return found;
}

// One `pitcrew run --json`, read event by event.
class Command {
 public:
  Command(const std::vector<std::string>& arguments, const std::string& errors) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return;
    pid_ = fork();
    if (pid_ == 0) {
      dup2(ends[1], STDOUT_FILENO);
      const int fd = open(errors.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
      dup2(fd, STDERR_FILENO);
      std::vector<char*> argv;
      for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
      argv.push_back(nullptr);
      execv(argv[0], argv.data());
      _exit(127);
    }
    close(ends[1]);
    out_ = fdopen(ends[0], "r");
  }
  ~Command() {
    if (out_ != nullptr) fclose(out_);
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
  }

  pid_t pid() const { return pid_; }

  // Reads events until one satisfies the condition; false where the program ended before.
  bool until(const std::function<bool(const Json&)>& condition) {
    char* line = nullptr;
    size_t size = 0;
    bool found = false;
    while (!found && getline(&line, &size, out_) > 0) {
      const auto event = parse_json(line);
      if (event && event->is_object()) found = condition(*event);
    }
    free(line);
    return found;
  }
  bool until_step(uint64_t step) {
    return until([step](const Json& event) {
      return event.value("event", "") == "progress" && event.value("phase", "") == "Running" &&
             event.value("step", 0ull) >= step;
    });
  }

  // The exit code, or 128 + the signal.
  int wait() {
    until([](const Json&) { return false; });
    int status = 0;
    waitpid(std::exchange(pid_, -1), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  pid_t pid_ = -1;
  FILE* out_ = nullptr;
};

class PitcrewRun : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    std::string pattern = (fs::temp_directory_path() / "pitcrew-run-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
    fs::create_directories(folder_ + "/text");
    std::ofstream text(folder_ + "/text/words.txt");
    Random random(1);
    const char* words[] = {"gang", "epoch", "rank", "slot", "spare", "lease", "shard", "step", "loss", "node"};
    for (int i = 0; i < 20'000; ++i) text << words[random.below(10)] << (i % 12 == 11 ? '\n' : ' ');
    text.close();
    std::ofstream(folder_ + "/train.yaml") << kTrain;
    std::string job = kJob;
    job.replace(job.find("FOLDER"), 6, folder_);
    std::ofstream(folder_ + "/job.yaml") << job;
    Command undisturbed = start("undisturbed");
    ASSERT_EQ(undisturbed.wait(), 0) << contents(folder_ + "/errors");
    wanted_ = losses("undisturbed");
    ASSERT_EQ(wanted_.size(), 600u);
  }
  static void TearDownTestSuite() {
    if (!::testing::UnitTest::GetInstance()->ad_hoc_test_result().Failed()) fs::remove_all(folder_);
  }
  void TearDown() override { EXPECT_TRUE(processes_of(folder_).empty()) << "processes are left behind"; }

  static Command start(const std::string& name, std::vector<std::string> more = {},
                       const std::string& job = "job.yaml") {
    std::vector<std::string> arguments{
        std::string(PITCREW_BIN_DIR) + "/pitcrew", "run", folder_ + "/" + job, "--json", "--dir", folder_ + "/" + name};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Command(arguments, folder_ + "/errors");
  }

  // The same job with a fault planted into its ranks' computing (trainer/train/planted_fault.hpp).
  static Command start_with_fault(const std::string& name, const std::string& fault) {
    std::string job = contents(folder_ + "/job.yaml");
    const std::string program = "[pitcrew-train,";
    job.replace(job.find(program), program.size(), "[env, 'PITCREW_TEST_FAULT=" + fault + "', pitcrew-train,");
    std::ofstream(folder_ + "/" + name + ".yaml") << job;
    return start(name, {"--nodes", "3", "--report", folder_ + "/" + name + ".json"}, name + ".yaml");
  }
  static std::string evidence(const std::string& name, const std::string& cause) {
    const auto report = parse_json(contents(folder_ + "/" + name + ".json"));
    if (!report) return "no report";
    std::string found;
    for (const Json& recovery : report->at("recoveries"))
      if (recovery.value("cause", "") + " " + recovery.value("rung", "") == cause) found += recovery.dump() + "\n";
    return found.empty() ? "none in " + report->dump(2) : found;
  }

  // Step and bits of each step of the surviving history.
  static std::vector<std::pair<uint64_t, std::string>> losses(const std::string& name) {
    std::vector<std::pair<uint64_t, std::string>> rows;
    std::ifstream in(folder_ + "/" + name + "/steps.jsonl");
    for (std::string line; std::getline(in, line);) {
      const auto row = parse_json(line);
      if (row && !row->contains("kind")) rows.emplace_back(row->value("step", 0ull), row->value("bits", ""));
    }
    return rows;
  }

  void expect_the_same_end(const std::string& name) {
    EXPECT_EQ(losses(name), wanted_) << "the losses differ from the undisturbed run's; everything is in " << folder_
                                     << "/" << name;
  }

  inline static std::string folder_;
  inline static std::vector<std::pair<uint64_t, std::string>> wanted_;
};

TEST_F(PitcrewRun, goes_through_every_failure_that_chaos_makes) {
  Command run = start("chaos", {"--nodes", "4", "--chaos", "kill-rank@100,kill-launcher@220,kill-node@340,hang@460",
                                "--report", folder_ + "/report.json"});
  EXPECT_EQ(run.wait(), 0) << contents(folder_ + "/errors");
  expect_the_same_end("chaos");
  const auto report = parse_json(contents(folder_ + "/report.json"));
  ASSERT_TRUE(report.ok());
  std::set<std::string> seen;
  for (const Json& recovery : report->at("recoveries"))
    seen.insert(recovery["cause"].get<std::string>() + " " + recovery["rung"].get<std::string>());
  EXPECT_EQ(seen, (std::set<std::string>{"RankCrash InPlace", "LauncherDeath Relaunched", "NodeLoss SpareTaken",
                                         "Hang InPlace"}))
      << report->dump(2);
  EXPECT_EQ(report->at("steps"), 600);
  EXPECT_EQ(report->at("finished"), true);
}

TEST_F(PitcrewRun, killing_pitcrew_itself_leaves_no_process_and_the_same_command_goes_on) {
  {
    Command run = start("killed");
    ASSERT_TRUE(run.until_step(60));
    kill(run.pid(), SIGKILL);
    EXPECT_EQ(run.wait(), 128 + SIGKILL);
  }
  // The guard needs a moment; reading from the process list is waiting for it.
  for (int i = 0; i < 100'000 && !processes_of(folder_).empty(); ++i) sched_yield();
  EXPECT_TRUE(processes_of(folder_).empty());
  Command again = start("killed");
  EXPECT_EQ(again.wait(), 0) << contents(folder_ + "/errors");
  expect_the_same_end("killed");
}

TEST_F(PitcrewRun, an_interrupt_saves_and_stops_and_the_same_command_goes_on) {
  {
    Command run = start("interrupted");
    ASSERT_TRUE(run.until_step(60));
    kill(run.pid(), SIGINT);
    EXPECT_TRUE(run.until([](const Json& event) { return event.value("event", "") == "stopped"; }));
    EXPECT_EQ(run.wait(), 0);
  }
  Command again = start("interrupted");
  EXPECT_TRUE(again.until([](const Json& event) { return event.value("event", "") == "resume"; }));
  EXPECT_EQ(again.wait(), 0) << contents(folder_ + "/errors");
  expect_the_same_end("interrupted");
}

TEST_F(PitcrewRun, any_process_may_be_killed_from_outside_at_any_time) {
  const uint64_t seed =
      std::getenv("PITCREW_SEED") != nullptr ? std::strtoull(std::getenv("PITCREW_SEED"), nullptr, 10) : 20260301;
  SCOPED_TRACE("replay with PITCREW_SEED=" + std::to_string(seed));
  Random random(seed);
  Command run = start("outside", {"--nodes", "4"});
  uint64_t next = 20;
  for (int kills = 0; kills < 4 && run.until_step(next); ++kills) {
    std::vector<pid_t> victims = processes_of(folder_);
    std::erase(victims, run.pid());
    ASSERT_FALSE(victims.empty());
    kill(victims[random.below(victims.size())], SIGKILL);
    next += 90 + random.below(50);
  }
  EXPECT_EQ(run.wait(), 0) << contents(folder_ + "/errors");
  expect_the_same_end("outside");
}

TEST_F(PitcrewRun, a_node_that_computes_wrongly_once_is_left_at_once) {
  Command run = start_with_fault("flip", R"({"node": "n1", "step": 120, "times": 1})");
  EXPECT_EQ(run.wait(), 0) << contents(folder_ + "/errors");
  expect_the_same_end("flip");
  const std::string told = evidence("flip", "GpuFault SpareTaken");
  EXPECT_NE(told.find("step 120: gradient norm"), std::string::npos) << told;
  EXPECT_NE(told.find("gave other bits"), std::string::npos) << told;
}

TEST_F(PitcrewRun, a_node_that_computes_wrongly_always_in_the_same_way_is_found_on_the_spare) {
  Command run = start_with_fault("stuck", R"({"node": "n1", "step": 120})");
  EXPECT_EQ(run.wait(), 0) << contents(folder_ + "/errors");
  expect_the_same_end("stuck");
  const std::string told = evidence("stuck", "Unknown SpareTaken");
  EXPECT_NE(told.find("twice with the same bits"), std::string::npos) << told;
  EXPECT_NE(told.find("the hardware of node n1 is suspect"), std::string::npos) << told;
}

TEST_F(PitcrewRun, a_bad_sample_is_named_and_ends_the_job) {
  Command run = start_with_fault("sample", R"({"sample": 957})");
  EXPECT_NE(run.wait(), 0);
  const std::string told = evidence("sample", "Program Failed");
  EXPECT_NE(told.find("exit code 65"), std::string::npos) << told;
  EXPECT_NE(told.find("the same bits as on node"), std::string::npos) << told;
  EXPECT_NE(told.find("look at samples 956 to 957"), std::string::npos) << told;
  EXPECT_NE(evidence("sample", "Unknown SpareTaken").find("computed again on another node"), std::string::npos);
}

TEST_F(PitcrewRun, a_second_run_in_the_same_folder_is_refused) {
  Command first = start("twice");
  ASSERT_TRUE(first.until_step(1));
  Command second = start("twice");
  EXPECT_EQ(second.wait(), 3);
  EXPECT_NE(contents(folder_ + "/errors").find("is in use by another pitcrew run"), std::string::npos);
  kill(first.pid(), SIGINT);
  EXPECT_EQ(first.wait(), 0);
}

TEST_F(PitcrewRun, what_cannot_run_here_is_refused_with_its_line_and_the_remedy) {
  std::string job = contents(folder_ + "/job.yaml");
  job.replace(job.find("persistentVolumeClaim: {claimName: shared}"), 42, "hostPath: {path: /data}");
  std::ofstream(folder_ + "/host.yaml") << job;
  Command run({std::string(PITCREW_BIN_DIR) + "/pitcrew", "run", folder_ + "/host.yaml", "--dir", folder_ + "/host"},
              folder_ + "/errors");
  EXPECT_EQ(run.wait(), 2);
  EXPECT_NE(contents(folder_ + "/errors").find("hostPath"), std::string::npos) << contents(folder_ + "/errors");
}

}  // namespace
}  // namespace pitcrew
