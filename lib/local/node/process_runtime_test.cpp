#include "lib/local/node/process_runtime.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/json.hpp"
#include "lib/local/node/own_children.hpp"
#include "lib/local/node/process_tree.hpp"
#include "lib/net/asio_loop.hpp"

namespace pitcrew::local {
namespace {

namespace fs = std::filesystem;

constexpr Duration kPatience = seconds(60);  // of a noisy machine; nothing waits for it when all is well

// A node of real processes on a real loop.
class ProcessRuntimeTest : public testing::Test, public ContainerRuntime::Handler {
 protected:
  ProcessRuntimeTest() {
    std::string name = (fs::temp_directory_path() / "node-XXXXXX").string();
    PITCREW_INVARIANT(::mkdtemp(name.data()) != nullptr, "a folder can be made");
    folder_ = name;
    runtime_ = std::make_unique<ProcessRuntime>(
        loop_, ProcessRuntimeSettings{{std::string(PITCREW_BIN_DIR) + "/pitcrew-node-shim"}});
    tick();
    runtime_->boot(*this);
    PITCREW_INVARIANT(loop_.run_until([&] { return up_; }, kPatience), "the node came up");
  }
  ~ProcessRuntimeTest() override {
    runtime_.reset();
    fs::remove_all(folder_);
  }

  // The loop looks at a condition after what it runs: something must run for files and processes to be looked at.
  void tick() {
    ticker_ = loop_.after(milliseconds(5), [this] { tick(); });
  }

  void booted() override { up_ = true; }
  void exited(const std::string& id, const ContainerExit& exit) override { exits_[id] = exit; }
  void died(const std::string& reason) override {
    up_ = false;
    died_ = reason;
  }

  void start(const std::string& id, const std::string& script) {
    ContainerSpec spec;
    spec.id = id;
    spec.argv = {"/bin/sh", "-c", script};
    spec.env = {{"PATH", "/usr/bin:/bin"}, {"FOLDER", folder_}};
    spec.folder = folder_;
    spec.log_file = folder_ + "/" + id + ".log";
    runtime_->start(std::move(spec));
  }
  ContainerExit wait_exit(const std::string& id) {
    EXPECT_TRUE(loop_.run_until([&] { return exits_.contains(id); }, kPatience)) << id << " did not end";
    return exits_[id];
  }
  // Waits for a file that a script writes when it has come so far, and reads its number.
  pid_t pid_in(const std::string& file) {
    pid_t pid = 0;
    EXPECT_TRUE(loop_.run_until(
        [&] {
          std::ifstream in(folder_ + "/" + file);
          return static_cast<bool>(in >> pid);
        },
        kPatience));
    return pid;
  }
  static bool alive(pid_t pid) {
    std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
    std::string text{std::istreambuf_iterator<char>(stat), {}};
    const size_t end = text.rfind(')');
    return end != std::string::npos && text[end + 2] != 'Z';
  }
  bool gone(pid_t pid) {
    return loop_.run_until([&] { return !alive(pid); }, kPatience);
  }
  std::string log(const std::string& id) {
    std::ifstream in(folder_ + "/" + id + ".log");
    return {std::istreambuf_iterator<char>(in), {}};
  }

  net::AsioLoop loop_;
  Loop::TimerPtr ticker_;
  std::string folder_;
  bool up_ = false;
  std::optional<std::string> died_;
  std::map<std::string, ContainerExit> exits_;
  std::unique_ptr<ProcessRuntime> runtime_;
};

TEST_F(ProcessRuntimeTest, tells_exit_codes_and_keeps_the_output) {
  start("a", "echo out; echo err >&2; exit 3");
  const ContainerExit exit = wait_exit("a");
  EXPECT_EQ(exit.exit_code, 3);
  EXPECT_EQ(exit.signal, 0);
  EXPECT_EQ(log("a"), "out\nerr\n");
}

TEST_F(ProcessRuntimeTest, tells_the_signal_that_ended_a_container) {
  start("a", "kill -SEGV $$");
  const ContainerExit exit = wait_exit("a");
  EXPECT_EQ(exit.signal, SIGSEGV);
  EXPECT_EQ(exit.exit_code, 128 + SIGSEGV);
}

TEST_F(ProcessRuntimeTest, a_command_that_is_not_there_says_so) {
  ContainerSpec spec;
  spec.id = "a";
  spec.argv = {"/no/such/program"};
  runtime_->start(spec);
  const ContainerExit exit = wait_exit("a");
  EXPECT_TRUE(exit.start_failed);
  EXPECT_NE(exit.message.find("/no/such/program"), std::string::npos) << exit.message;
}

TEST_F(ProcessRuntimeTest, a_signal_reaches_the_first_process) {
  start("a", "trap 'exit 7' TERM; echo $$ > up; while true; do read x < /dev/null; done");
  pid_in("up");
  runtime_->signal("a", SIGTERM);
  EXPECT_EQ(wait_exit("a").exit_code, 7);
}

TEST_F(ProcessRuntimeTest, killing_a_container_kills_what_has_left_its_session) {
  start("a", "setsid sh -c 'echo $$ > far; exec sleep 1000' & echo $$ > near; sleep 1000");
  const pid_t near = pid_in("near");
  const pid_t far = pid_in("far");
  runtime_->kill("a");
  EXPECT_EQ(wait_exit("a").signal, SIGKILL);
  EXPECT_TRUE(gone(near));
  EXPECT_TRUE(gone(far));
}

TEST_F(ProcessRuntimeTest, what_a_container_leaves_behind_ends_with_it_and_nobody_elses) {
  start("other", "echo $$ > other; sleep 1000");
  const pid_t other = pid_in("other");
  start("a", "setsid sh -c 'echo $$ > far; exec sleep 1000' & while [ ! -s far ]; do :; done; exit 0");
  EXPECT_EQ(wait_exit("a").exit_code, 0);
  EXPECT_TRUE(gone(pid_in("far")));
  EXPECT_TRUE(alive(other));
}

TEST_F(ProcessRuntimeTest, when_the_node_is_killed_everything_on_it_dies_and_it_can_boot_again) {
  start("a", "setsid sh -c 'echo $$ > far; exec sleep 1000' & echo $$ > near; sleep 1000");
  const pid_t near = pid_in("near");
  const pid_t far = pid_in("far");
  ::kill(runtime_->pid(), SIGKILL);
  ASSERT_TRUE(loop_.run_until([&] { return died_.has_value(); }, kPatience));
  EXPECT_FALSE(alive(near));
  EXPECT_FALSE(alive(far)) << "gone before died() is told";
  runtime_->boot(*this);
  ASSERT_TRUE(loop_.run_until([&] { return up_; }, kPatience));
  start("b", "exit 0");
  EXPECT_EQ(wait_exit("b").exit_code, 0);
}

// Processes end from the node downwards, so that some have ended before they come to the node's owner as orphans.
TEST_F(ProcessRuntimeTest, a_node_that_was_killed_leaves_no_zombies) {
  for (int round = 0; round < 5; ++round) {
    for (const std::string id : {"a", "b", "c"})
      start(id, "sleep 1000 & setsid sleep 1000 & echo $$ > " + id + std::to_string(round) + "; sleep 1000");
    for (const std::string id : {"a", "b", "c"}) pid_in(id + std::to_string(round));
    ::kill(runtime_->pid(), SIGKILL);
    ASSERT_TRUE(loop_.run_until([&] { return died_.has_value(); }, kPatience));
    EXPECT_EQ(zombies(::getpid()), std::vector<pid_t>()) << "after the kill of round " << round;
    died_.reset();
    runtime_->boot(*this);
    ASSERT_TRUE(loop_.run_until([&] { return up_; }, kPatience));
  }
}

TEST_F(ProcessRuntimeTest, a_node_whose_power_went_leaves_no_zombies) {
  start("a", "sleep 1000 & setsid sleep 1000 & echo $$ > near; sleep 1000");
  pid_in("near");
  runtime_->freeze();
  runtime_->power_off();
  ASSERT_TRUE(loop_.run_until([&] { return died_.has_value(); }, kPatience));
  EXPECT_EQ(zombies(::getpid()), std::vector<pid_t>());
}

// Who started a process waits for it, whatever else this one waits for.
TEST_F(ProcessRuntimeTest, only_orphans_are_waited_for_by_the_way) {
  const pid_t own = start_child([] {
    const pid_t pid = ::fork();
    if (pid == 0) ::_exit(7);
    return pid;
  });
  ASSERT_TRUE(loop_.run_until([&] { return zombies(::getpid()) == std::vector<pid_t>{own}; }, kPatience));
  EXPECT_TRUE(reap_orphans());
  EXPECT_EQ(WEXITSTATUS(wait_for_child(own)), 7);
}

TEST_F(ProcessRuntimeTest, a_frozen_node_stands_still_and_says_nothing_until_its_power_goes) {
  start("a", "echo $$ > near; while true; do :; done");
  const pid_t near = pid_in("near");
  runtime_->freeze();
  ASSERT_TRUE(loop_.run_until(
      [&] {
        std::ifstream stat("/proc/" + std::to_string(near) + "/stat");
        std::string text{std::istreambuf_iterator<char>(stat), {}};
        return text[text.rfind(')') + 2] == 'T';
      },
      kPatience));
  ::kill(near, SIGKILL);
  EXPECT_TRUE(gone(near));
  runtime_->power_off();
  ASSERT_TRUE(loop_.run_until([&] { return died_.has_value(); }, kPatience));
  EXPECT_FALSE(exits_.contains("a"));
}

TEST_F(ProcessRuntimeTest, destroying_the_runtime_leaves_no_process) {
  start("a", "setsid sh -c 'echo $$ > far; exec sleep 1000' & echo $$ > near; sleep 1000");
  const pid_t near = pid_in("near");
  const pid_t far = pid_in("far");
  const pid_t shim = runtime_->pid();
  runtime_.reset();
  EXPECT_FALSE(alive(shim));
  EXPECT_FALSE(alive(near));
  EXPECT_FALSE(alive(far));
}

// In the place of `pitcrew run`, so that it can be killed: starts a shim with one container, and waits for its end.
[[noreturn]] void own_a_node(const std::string& folder) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) ::_exit(1);
  const std::string program = std::string(PITCREW_BIN_DIR) + "/pitcrew-node-shim";
  const std::string number = std::to_string(ends[1]);
  const pid_t shim = ::fork();
  if (shim == 0) {
    ::close(ends[0]);
    ::execl(program.c_str(), program.c_str(), number.c_str(), nullptr);
    ::_exit(1);
  }
  ::close(ends[1]);
  const Json order{
      {"do", "start"},
      {"id", "a"},
      {"env", {{"PATH", "/usr/bin:/bin"}}},
      {"folder", folder},
      {"argv",
       Json::array({"/bin/sh", "-c", "setsid sh -c 'echo $$ > far; exec sleep 1000' & echo $$ > near; sleep 1000"})}};
  const std::string line = order.dump() + "\n";
  if (::write(ends[0], line.data(), line.size()) < 0) ::_exit(1);
  std::ofstream(folder + "/shim") << shim << std::endl;
  while (true) ::pause();
}

TEST_F(ProcessRuntimeTest, when_the_owner_is_killed_nothing_of_the_node_is_left_though_the_node_stands_still) {
  const pid_t owner = ::fork();
  if (owner == 0) own_a_node(folder_);
  const pid_t near = pid_in("near");
  const pid_t far = pid_in("far");
  const pid_t shim = pid_in("shim");
  ::kill(shim, SIGSTOP);
  ::kill(owner, SIGKILL);
  ::waitpid(owner, nullptr, 0);
  EXPECT_TRUE(gone(near));
  EXPECT_TRUE(gone(far));
  EXPECT_TRUE(gone(shim));
}

}  // namespace
}  // namespace pitcrew::local
