#include "launcher/supervise/supervisor.hpp"

#include <cstdlib>
#include <fstream>
#include <map>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "launcher/supervise/proc.hpp"

extern char** environ;

namespace pitcrew::launcher {
namespace {

using api::channel::ExitKind;

constexpr Duration kCap = seconds(60);  // generous: what is waited for takes milliseconds

// A supervisor of test ranks whose output goes into a file, or into a pipe that the test reads.
class SupervisorTest : public ::testing::Test {
 protected:
  SupervisorTest() {
    const char* base = getenv("TMPDIR");
    std::string pattern = std::string(base != nullptr ? base : "/tmp") + "/pitcrew-supervise-XXXXXX";
    folder_ = mkdtemp(pattern.data());
    for (char** entry = environ; *entry != nullptr; ++entry) environment_.push_back(*entry);
  }
  ~SupervisorTest() override {
    supervisor_.reset();
    while (waitpid(-1, nullptr, 0) > 0) {
    }
    if (system(("rm -rf " + folder_).c_str()) != 0) ADD_FAILURE() << "could not remove " << folder_;
  }

  void make(Supervisor::Settings settings = {}) {
    if (settings.stdout_fd == 1) {
      out_ = Descriptor(open((folder_ + "/out").c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
      settings.stdout_fd = out_.get();
    }
    auto made = Supervisor::create(
        loop_, settings, {.on_exit = [this](size_t local, const ExitCause& cause) { exits_.emplace(local, cause); }},
        {});
    ASSERT_TRUE(made) << made.error().message;
    supervisor_ = *std::move(made);
  }
  RankStart rank(uint32_t number, std::vector<std::string> arguments, std::string log = "") {
    arguments.insert(arguments.begin(), PITCREW_TEST_RANK);
    return {Rank(number), {std::move(arguments), environment_}, std::move(log)};
  }
  void start(std::vector<std::vector<std::string>> ranks) {
    std::vector<RankStart> starts;
    for (auto& arguments : ranks) starts.push_back(rank(static_cast<uint32_t>(starts.size()), std::move(arguments)));
    const Status started = supervisor_->start(std::move(starts));
    ASSERT_TRUE(started) << started.error().message;
  }
  // The condition may be one that no event of the loop tells of.
  bool wait(const std::function<bool()>& condition) {
    Loop::TimerPtr timer;
    std::function<void()> tick = [&] { timer = loop_.after(milliseconds(5), tick); };
    tick();
    return loop_.run_until(condition, kCap);
  }
  bool wait_for_exits(size_t count) {
    return wait([&] { return exits_.size() == count; });
  }
  AbortResult abort() {
    std::optional<AbortResult> result;
    supervisor_->abort([&](const AbortResult& r) { result = r; });
    EXPECT_TRUE(wait([&] { return result.has_value(); }));
    return result.value_or(AbortResult{});
  }
  std::string output() {
    supervisor_->drain(kCap);
    return content(folder_ + "/out");
  }
  static std::string content(const std::string& path) {
    std::ifstream in(path);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  pid_t pid_in(const std::string& file) {
    EXPECT_TRUE(wait([&] { return access(file.c_str(), F_OK) == 0; }));
    return static_cast<pid_t>(std::stol(content(file)));
  }
  static bool exists(pid_t pid) { return kill(pid, 0) == 0; }

  std::string folder_;
  std::vector<std::string> environment_;
  net::AsioLoop loop_;
  Descriptor out_;
  std::multimap<size_t, ExitCause> exits_;
  std::unique_ptr<Supervisor> supervisor_;
};

TEST_F(SupervisorTest, every_exit_is_reported_with_its_cause) {
  make();
  start({{"exit", "0"}, {"exit", "3"}, {"signal", "6"}});
  ASSERT_TRUE(wait_for_exits(3));
  EXPECT_EQ(exits_.find(0)->second.reason, "exit code 0");
  EXPECT_EQ(exits_.find(1)->second.code, 3);
  EXPECT_EQ(exits_.find(2)->second.reason, "killed by SIGABRT");
  EXPECT_FALSE(supervisor_->any_alive());
}

TEST_F(SupervisorTest, a_program_that_does_not_exist_is_named) {
  make();
  ASSERT_TRUE(supervisor_->start({{Rank(0), {{"no-such-program"}, environment_}, ""}}));
  ASSERT_TRUE(wait_for_exits(1));
  EXPECT_EQ(exits_.find(0)->second.kind, ExitKind::kStartFailed);
  EXPECT_NE(exits_.find(0)->second.reason.find("no-such-program"), std::string::npos);
}

TEST_F(SupervisorTest, the_last_output_is_known_when_the_exit_is) {
  make();
  start({{"print-and-exit", "Traceback (most recent call last):\n  File \"t.py\"\nKeyError: 'x'\n", "1"}});
  ASSERT_TRUE(wait_for_exits(1));
  EXPECT_EQ(exits_.find(0)->second.exception, "KeyError: 'x'");
  EXPECT_EQ(output(),
            "[rank 0] Traceback (most recent call last):\n[rank 0]   File \"t.py\"\n[rank 0] KeyError: 'x'\n");
}

TEST_F(SupervisorTest, a_kill_by_the_kernel_for_memory_is_named) {
  uint64_t kills = 7;
  make({.oom_kills = [&] { return kills; }});
  start({{"signal", "9"}, {"sleep"}});
  kills = 8;
  ASSERT_TRUE(wait_for_exits(1));
  EXPECT_EQ(exits_.find(0)->second.kind, ExitKind::kOom);
  kills = 0;  // a counter that can't be read any more
  EXPECT_TRUE(abort().clean);
}

TEST_F(SupervisorTest, ranks_have_groups_of_their_own_and_the_given_environment) {
  make();
  environment_ = {"RANK=4", "PATH=/bin"};
  start({{"environment"}});
  EXPECT_NE(getpgid(0), getpgid(supervisor_->pid(0)));
  ASSERT_TRUE(wait_for_exits(1));
  EXPECT_EQ(output(), "[rank 0] RANK=4\n[rank 0] PATH=/bin\n");
}

TEST_F(SupervisorTest, output_also_goes_to_the_ranks_log_without_prefix) {
  make();
  ASSERT_TRUE(supervisor_->start({rank(5, {"print-and-exit", "one\ntwo", "0"}, folder_ + "/rank-5.log")}));
  ASSERT_TRUE(wait_for_exits(1));
  EXPECT_EQ(output(), "[rank 5] one\n[rank 5] two\n");
  EXPECT_EQ(content(folder_ + "/rank-5.log"), "one\ntwo");
}

TEST_F(SupervisorTest, an_abort_kills_ranks_that_ignore_sigterm_and_reports_no_exit) {
  make();
  start({{"ignore-term"}, {"sleep"}, {"ignore-term"}});
  const Instant begun = loop_.now();
  EXPECT_TRUE(abort().clean);
  EXPECT_LT(to_seconds(loop_.now() - begun), 30);
  EXPECT_TRUE(exits_.empty());
  EXPECT_FALSE(supervisor_->any_alive());
}

TEST_F(SupervisorTest, an_abort_finds_orphans_in_sessions_of_their_own) {
  make();
  start({{"orphan", folder_ + "/pid"}, {"sleep"}});
  const pid_t orphan = pid_in(folder_ + "/pid");
  EXPECT_TRUE(exists(orphan));
  EXPECT_TRUE(abort().clean);
  EXPECT_FALSE(exists(orphan));
}

TEST_F(SupervisorTest, an_orphan_of_a_rank_that_has_ended_is_found_too) {
  make();
  start({{"orphan-and-exit", folder_ + "/pid"}});
  ASSERT_TRUE(wait_for_exits(1));
  const pid_t orphan = pid_in(folder_ + "/pid");
  EXPECT_TRUE(exists(orphan));
  EXPECT_TRUE(abort().clean);
  EXPECT_FALSE(exists(orphan));
  EXPECT_GE(supervisor_->reaped(), 3u) << "the rank, the process between, the orphan";
}

TEST_F(SupervisorTest, a_shell_and_its_children_die_together) {
  make();
  ASSERT_TRUE(supervisor_->start(
      {{Rank(0), {{"/bin/sh", "-c", "sleep 1000 & sleep 1000 & echo started; wait"}, environment_}, ""}}));
  ASSERT_TRUE(wait([&] { return supervisor_->tail(0) == "started\n"; }));
  EXPECT_EQ(descendants_of(getpid()).size(), 3u);
  EXPECT_TRUE(abort().clean);
  EXPECT_TRUE(descendants_of(getpid()).empty());
}

TEST_F(SupervisorTest, an_abort_with_nothing_running_is_clean) {
  make();
  EXPECT_TRUE(abort().clean);
}

TEST_F(SupervisorTest, two_aborts_at_once_are_both_told) {
  make();
  start({{"sleep"}});
  int told = 0;
  for (int i = 0; i < 2; ++i) {
    supervisor_->abort([&](const AbortResult& result) { told += result.clean ? 1 : 0; });
  }
  EXPECT_TRUE(wait([&] { return told == 2; }));
}

TEST_F(SupervisorTest, ranks_start_again_after_an_abort) {
  make();
  for (int i = 0; i < 5; ++i) {
    start({{"sleep"}, {"sleep"}});
    EXPECT_TRUE(supervisor_->any_alive());
    EXPECT_TRUE(abort().clean);
  }
  start({{"exit", "0"}});
  EXPECT_TRUE(wait_for_exits(1));
}

TEST_F(SupervisorTest, a_process_that_will_not_die_is_named_and_the_loop_goes_on) {
  // SIGKILL always works on a process of ours: a time of zero stands for one that the kernel holds.
  make({.not_clean_after = Duration(0)});
  start({{"sleep"}});
  supervisor_->abort([&](const AbortResult&) {});
  std::optional<AbortResult> result;
  supervisor_->abort([&](const AbortResult& r) { result = r; });
  ASSERT_TRUE(wait([&] { return result.has_value(); }));
  if (!result->clean) {
    EXPECT_NE(result->message.find("SIGKILL"), std::string::npos);
  }
  EXPECT_TRUE(wait([&] { return !supervisor_->any_alive(); })) << "it is still reaped afterwards";
}

TEST_F(SupervisorTest, a_planned_stop_is_clean_when_every_rank_exits_with_0) {
  make();
  start({{"exit-on-term"}, {"exit-on-term"}});
  ASSERT_TRUE(wait([&] { return supervisor_->tail(0) == "ready\n" && supervisor_->tail(1) == "ready\n"; }));
  std::optional<bool> clean;
  supervisor_->stop(kCap, [&](bool c) { clean = c; });
  ASSERT_TRUE(wait([&] { return clean.has_value(); }));
  EXPECT_TRUE(*clean);
  EXPECT_EQ(exits_.size(), 2u);
}

TEST_F(SupervisorTest, a_planned_stop_ends_those_who_do_not_when_the_grace_is_over) {
  make();
  start({{"ignore-term"}, {"exit-on-term"}});
  ASSERT_TRUE(wait([&] { return supervisor_->tail(0) == "ready\n" && supervisor_->tail(1) == "ready\n"; }));
  std::optional<bool> clean;
  supervisor_->stop(milliseconds(50), [&](bool c) { clean = c; });
  ASSERT_TRUE(wait([&] { return clean.has_value(); }));
  EXPECT_FALSE(*clean);
  EXPECT_FALSE(supervisor_->any_alive());
}

TEST_F(SupervisorTest, a_planned_stop_also_ends_what_the_ranks_left_behind) {
  make();
  start({{"orphan-and-exit", folder_ + "/pid"}});
  ASSERT_TRUE(wait_for_exits(1));
  const pid_t orphan = pid_in(folder_ + "/pid");
  std::optional<bool> clean;
  supervisor_->stop(kCap, [&](bool c) { clean = c; });
  ASSERT_TRUE(wait([&] { return clean.has_value(); }));
  EXPECT_TRUE(*clean);
  EXPECT_FALSE(exists(orphan));
}

TEST_F(SupervisorTest, a_slow_reader_loses_nothing_and_holds_the_ranks_not_the_loop) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  Descriptor read_end(ends[0]), write_end(ends[1]);
  make({.stdout_fd = write_end.get()});
  constexpr int kLines = 20'000;
  start({{"spew", std::to_string(kLines), "100"}, {"spew", std::to_string(kLines), "100"}});
  // Nobody reads: the ranks wait, and timers of the loop still run.
  ASSERT_TRUE(wait([&] { return supervisor_->output_blocked(0) && supervisor_->output_blocked(1); }));
  EXPECT_TRUE(supervisor_->alive(0));
  bool ran = false;
  const auto timer = loop_.after(milliseconds(1), [&] { ran = true; });
  EXPECT_TRUE(wait([&] { return ran; }));
  EXPECT_GE(supervisor_->output_pauses(), 1u);

  std::string got;
  std::thread reader([&] {
    char buffer[65536];
    for (ssize_t n; (n = read(read_end.get(), buffer, sizeof buffer)) > 0;) got.append(buffer, static_cast<size_t>(n));
  });
  EXPECT_TRUE(wait_for_exits(2));
  EXPECT_TRUE(supervisor_->drain(kCap));
  supervisor_.reset();
  write_end.reset();
  reader.join();

  std::map<std::string, int> next;
  size_t lines = 0;
  for (size_t at = 0; at < got.size(); ++lines) {
    const size_t end = got.find('\n', at);
    ASSERT_NE(end, std::string::npos);
    const std::string line = got.substr(at, end - at);
    const std::string rank = line.substr(0, 8);
    ASSERT_EQ(std::stoi(line.substr(9)), next[rank]++) << line;
    ASSERT_EQ(line.size(), 109u);
    at = end + 1;
  }
  EXPECT_EQ(lines, 2u * kLines);
}

TEST_F(SupervisorTest, a_rank_that_has_ended_behind_a_slow_reader_is_still_reported) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  Descriptor read_end(ends[0]), write_end(ends[1]);
  make({.stdout_fd = write_end.get()});
  start({{"spew", "100000", "100"}, {"sleep"}});
  ASSERT_TRUE(wait([&] { return supervisor_->output_blocked(0); }));
  kill(supervisor_->pid(1), SIGABRT);
  ASSERT_TRUE(wait_for_exits(1));
  EXPECT_EQ(exits_.begin()->first, 1u);
  EXPECT_TRUE(abort().clean);
}

TEST_F(SupervisorTest, stacks_hold_the_kernels_words_and_the_programs_own_backtrace) {
  make();
  start({{"backtrace"}, {"sleep"}});
  ASSERT_TRUE(wait([&] { return supervisor_->tail(0) == "ready\n" && !catches_signal(supervisor_->pid(1), SIGUSR2); }));
  std::string text;
  supervisor_->collect_stacks(16 * 1024, [&](std::string t) { text = std::move(t); });
  ASSERT_TRUE(wait([&] { return !text.empty(); }));
  EXPECT_NE(text.find("rank 0, pid " + std::to_string(supervisor_->pid(0))), std::string::npos) << text;
  EXPECT_NE(text.find("train_step at step.cpp:42"), std::string::npos) << text;
  EXPECT_NE(text.find("rank 1, pid"), std::string::npos) << text;
  EXPECT_NE(text.find(": state "), std::string::npos) << text;
  EXPECT_TRUE(supervisor_->alive(1)) << "a program without a handler is not sent the signal: it would die";
}

TEST_F(SupervisorTest, stacks_of_a_stopped_rank_come_without_its_answer) {
  make();
  start({{"backtrace"}});
  ASSERT_TRUE(wait([&] { return supervisor_->tail(0) == "ready\n"; }));
  kill(supervisor_->pid(0), SIGSTOP);
  ASSERT_TRUE(wait([&] { return describe_process(supervisor_->pid(0)).find("(T") != std::string::npos; }));
  std::string text;
  supervisor_->collect_stacks(2000, [&](std::string t) { text = std::move(t); });
  ASSERT_TRUE(wait([&] { return !text.empty(); }));
  EXPECT_NE(text.find("no answer to SIGUSR2"), std::string::npos) << text;
  EXPECT_NE(text.find("state T"), std::string::npos) << text;
  EXPECT_LE(text.size(), 2000u);
  EXPECT_TRUE(abort().clean) << "a stopped rank dies by SIGKILL all the same";
}

TEST_F(SupervisorTest, ranks_die_with_the_process_that_started_them) {
  // A launcher of its own in a child, killed without a chance to clean up.
  const std::string file = folder_ + "/pids";
  const pid_t launcher = fork();
  if (launcher == 0) {
    const auto process = start_process({{PITCREW_TEST_RANK, "sleep"}, environment_});
    std::ofstream(file + ".tmp") << process->pid << "\n";
    rename((file + ".tmp").c_str(), file.c_str());
    pause();
    _exit(0);
  }
  const pid_t rank = pid_in(file);
  EXPECT_TRUE(exists(rank));
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  kill(launcher, SIGKILL);
  EXPECT_EQ(waitpid(launcher, nullptr, 0), launcher);
  EXPECT_EQ(waitpid(rank, nullptr, 0), rank) << "adopted by us, and dead";
}

}  // namespace
}  // namespace pitcrew::launcher
