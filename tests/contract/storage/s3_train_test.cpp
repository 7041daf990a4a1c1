// pitcrew-train with its checkpoints in a bucket: killed at a random moment, it goes on bit for bit; what its commands
// say of the bucket.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/json.hpp"
#include "tests/contract/storage/s3_server.hpp"
#include "trainer/checkpoint/testing.hpp"

namespace pitcrew::trainer {
namespace {

using testing::S3Server;

std::string contents(const std::string& file) {
  std::ifstream stream(file);
  return {std::istreambuf_iterator<char>(stream), {}};
}

class S3Train : public ::testing::Test {
 protected:
  void SetUp() override {
    PITCREW_NEEDS_S3_SERVER();
    std::ofstream text(folder.at("text.txt"));
    for (int i = 0; i < 400; ++i) text << "line " << i * i << " of the text;";
    std::ofstream(folder.at("tiny.yaml"))
        << "model: {kind: llama, layers: 1, width: 16, heads: 2, mlp: 32, vocab: 256, context: 8}\n"
           "batch: {sequences: 8, micro: 1}\nsteps: 40\noptimizer: {learningRate: 1e-2}\nschedule: {warmup: 3}\n"
           "data: {text: {paths: [text.txt]}, heldOut: 4}\nevaluation: {every: 10}\n"
           "checkpoint: {path: ck, every: {steps: 3}}\nlog: {every: 1}\n";
    path = S3Server::shared()->new_path();
  }
  void TearDown() override {
    if (pid > 0) end(SIGKILL);
  }

  void start(const std::vector<std::string>& arguments, const std::string& output) {
    const auto environment = S3Server::shared()->environment();
    pid = ::fork();
    if (pid != 0) return;
    const int fd = ::open(folder.at(output).c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    ::dup2(fd, 1);
    ::dup2(fd, 2);
    for (const auto& [name, value] : environment) ::setenv(name.c_str(), value.c_str(), 1);
    std::vector<char*> argv{const_cast<char*>("pitcrew-train")};
    for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    ::execv(program.c_str(), argv.data());
    ::_exit(127);
  }
  void train(const std::string& checkpoints, const std::string& output) {
    start({folder.at("tiny.yaml"), "--set", "checkpoint.path=" + checkpoints}, output);
  }
  int end(int signal = 0) {
    if (signal != 0) ::kill(pid, signal);
    int status = 0;
    ::waitpid(pid, &status, 0);
    pid = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  bool running() const {
    siginfo_t ended{};
    ::waitid(P_PID, static_cast<id_t>(pid), &ended, WEXITED | WNOHANG | WNOWAIT);
    return ended.si_pid == 0;
  }
  void wait_for(const std::string& output, const std::string& text) const {
    while (contents(folder.at(output)).find(text) == std::string::npos && running()) ::poll(nullptr, 0, 2);
  }
  // Every step's bits, from the parts in the bucket, in order.
  std::string log_in_bucket() {
    const auto storage = *s3::open_s3_storage(path, S3Server::shared()->variables(), clock);
    std::string all;
    const auto parts = *storage->list("steps");
    for (const auto& part : parts) all += *storage->read("steps/" + part.name, 1 << 20);
    return bits_of(all);
  }
  static std::string bits_of(const std::string& log) {
    std::istringstream lines(log);
    std::string all;
    for (std::string line; std::getline(lines, line);) {
      const Json json = Json::parse(line);
      all += std::to_string(json["step"].get<uint64_t>()) + json.value("kind", "") + " " +
             json["bits"].get<std::string>() + "\n";
    }
    return all;
  }

  const RealClock clock;
  testing::TemporaryFolder folder;
  std::string path;
  std::string program = PITCREW_BIN_DIR "/pitcrew-train";
  pid_t pid = -1;
};

TEST_F(S3Train, killed_again_and_again_it_ends_with_the_bits_of_the_run_that_never_failed) {
  train(folder.at("undisturbed"), "undisturbed.out");
  ASSERT_EQ(end(), 0) << contents(folder.at("undisturbed.out"));
  const std::string expected = bits_of(contents(folder.at("undisturbed/steps.jsonl")));
  ASSERT_EQ(std::count(expected.begin(), expected.end(), '\n'), 44);

  for (const char* step : {"step 7/", "step 16/", "step 31/"}) {
    train(path, "killed.out");
    wait_for("killed.out", step);
    EXPECT_EQ(end(SIGKILL), 128 + SIGKILL) << contents(folder.at("killed.out"));
  }
  train(path, "last.out");
  EXPECT_EQ(end(), 0);
  const std::string said = contents(folder.at("last.out"));
  EXPECT_THAT(said, ::testing::HasSubstr("resuming from step "));
  EXPECT_THAT(said, ::testing::HasSubstr("done: step 40"));
  EXPECT_EQ(log_in_bucket(), expected) << said;

  start({"checkpoints", path, "--verify"}, "verified.out");
  EXPECT_EQ(end(), 0);
  const Json verified = Json::parse(contents(folder.at("verified.out")));
  EXPECT_EQ(verified["checkpoints"][0]["step"], 40);
  EXPECT_EQ(verified["checkpoints"][0]["intact"], true);
  start({"checkpoints", path}, "listed.out");
  EXPECT_EQ(end(), 0);
  EXPECT_EQ(Json::parse(contents(folder.at("listed.out")))["checkpoints"].size(), 3u);
}

TEST_F(S3Train, a_bucket_that_is_not_there_ends_it_before_the_first_step_with_the_remedy) {
  train("s3://no-such-bucket/p", "said.out");
  EXPECT_EQ(end(), 64);
  const std::string said = contents(folder.at("said.out"));
  EXPECT_THAT(said, ::testing::HasSubstr("make the bucket, or correct checkpoint.path"));
  EXPECT_THAT(said, ::testing::Not(::testing::HasSubstr("step 1/")));
}

TEST_F(S3Train, without_the_library_it_says_what_to_install) {
  const std::string alone = folder.at("alone");
  std::filesystem::create_directories(alone + "/bin");
  std::filesystem::copy(program, alone + "/bin/pitcrew-train");
  program = alone + "/bin/pitcrew-train";
  train(path, "said.out");
  EXPECT_EQ(end(), 64);
  EXPECT_THAT(contents(folder.at("said.out")), ::testing::HasSubstr("load libpitcrew_s3.so"));
  EXPECT_THAT(contents(folder.at("said.out")), ::testing::HasSubstr("libcurl4-openssl-dev"));
}

}  // namespace
}  // namespace pitcrew::trainer
