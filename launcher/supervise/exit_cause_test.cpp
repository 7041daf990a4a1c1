#include "launcher/supervise/exit_cause.hpp"

#include <csignal>

#include <gtest/gtest.h>

namespace pitcrew::launcher {
namespace {

using api::channel::ExitKind;

constexpr int exited(int code) { return code << 8; }
constexpr int signaled(int signal) { return signal; }

TEST(ExitCause, is_named_from_status_memory_and_output) {
  struct Row {
    const char* what;
    ExitFacts facts;
    ExitKind kind;
    int code;
    const char* reason;
  };
  const char* kTraceback = "Traceback (most recent call last):\n  File \"a.py\"\nValueError: no\n";
  const std::vector<Row> rows{
      {"done", {exited(0)}, ExitKind::kExited, 0, "exit code 0"},
      {"a Python error",
       {.wait_status = exited(1), .output = kTraceback},
       ExitKind::kExited,
       1,
       "exit code 1: ValueError: no"},
      {"bad configuration", {exited(64)}, ExitKind::kExited, 64, "exit code 64 (bad configuration)"},
      {"bad data", {exited(65)}, ExitKind::kExited, 65, "exit code 65 (bad data)"},
      {"try again", {exited(75)}, ExitKind::kExited, 75, "exit code 75 (asks to be tried again)"},
      {"replace node", {exited(76)}, ExitKind::kExited, 76, "exit code 76 (asks for another node)"},
      {"bad configuration that says which",
       {.wait_status = exited(64), .output = "loading\ntrain.yaml: model.kind: 'gpt5' is unknown\n\n"},
       ExitKind::kExited,
       64,
       "exit code 64 (bad configuration): train.yaml: model.kind: 'gpt5' is unknown"},
      {"a crash", {signaled(SIGSEGV)}, ExitKind::kSignaled, SIGSEGV, "killed by SIGSEGV"},
      {"a crash with a core", {signaled(SIGABRT) | 0x80}, ExitKind::kSignaled, SIGABRT, "killed by SIGABRT"},
      {"killed from outside", {signaled(SIGKILL)}, ExitKind::kSignaled, SIGKILL, "killed by SIGKILL"},
      {"killed for memory",
       {.wait_status = signaled(SIGKILL), .oom_kills = 2},
       ExitKind::kOom,
       SIGKILL,
       "out of memory: the kernel killed 2 process(es) of the container; raise its memory limit or lower what the "
       "program holds"},
      {"a crash while another was killed for memory",
       {.wait_status = signaled(SIGSEGV), .oom_kills = 1},
       ExitKind::kSignaled,
       SIGSEGV,
       "killed by SIGSEGV"},
      {"a shell whose child was killed for memory",
       {.wait_status = exited(137), .oom_kills = 1},
       ExitKind::kOom,
       137,
       "out of memory: a child of the program was killed by the kernel (exit code 137)"},
      {"a shell whose child was killed", {exited(137)}, ExitKind::kExited, 137, "exit code 137"},
      {"never started",
       {.wait_status = exited(127), .exec_errno = ENOENT, .program = "trian"},
       ExitKind::kStartFailed,
       127,
       "could not start 'trian': No such file or directory; check the container's command and its image"},
  };
  for (const Row& row : rows) {
    const ExitCause cause = name_exit(row.facts);
    EXPECT_EQ(cause.kind, row.kind) << row.what;
    EXPECT_EQ(cause.code, row.code) << row.what;
    EXPECT_EQ(cause.reason, row.reason) << row.what;
  }
}

TEST(ExitCause, carries_the_last_lines_and_the_exception) {
  const ExitCause cause =
      name_exit({.wait_status = exited(1), .output = "a\nTraceback (most recent call last):\n  File \"a.py\"\nE: x\n"});
  EXPECT_EQ(cause.exception, "E: x");
  EXPECT_EQ(cause.last_lines.back(), "E: x");
  EXPECT_EQ(cause.last_lines.size(), 4u);
}

TEST(OomKills, are_read_from_both_kinds_of_cgroup) {
  EXPECT_EQ(parse_oom_kills("low 0\nhigh 0\nmax 17\noom 3\noom_kill 2\noom_group_kill 0\n"), 2u);
  EXPECT_EQ(parse_oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"), 5u);
  EXPECT_EQ(parse_oom_kills("oom_kill_disable 0\nunder_oom 0\n"), std::nullopt);
  EXPECT_EQ(parse_oom_kills(""), std::nullopt);
}

TEST(Signals, without_a_name_have_a_number) {
  EXPECT_EQ(signal_name(SIGKILL), "SIGKILL");
  EXPECT_EQ(signal_name(200), "signal 200");
}

}  // namespace
}  // namespace pitcrew::launcher
