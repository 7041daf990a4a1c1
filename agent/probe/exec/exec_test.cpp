#include "agent/probe/exec/exec.hpp"

#include <chrono>
#include <fstream>

#include <gtest/gtest.h>
#include <sched.h>

#include "agent/probe/testing/fake_host.hpp"

namespace pitcrew::agent::exec {
namespace {

const Instant kNow = Instant(seconds(1'700'000'000));

class Programs : public testing::Test {
 protected:
  Program program(const std::string& script, Duration timeout = seconds(60)) const {
    return {"test", {folder_.write_program("program", "#!/bin/sh\n" + script + "\n")}, minutes(5), timeout};
  }
  TempFolder folder_;
};

TEST_F(Programs, exit_code_0_is_fine_and_1_is_a_problem_with_its_reason) {
  EXPECT_EQ(values_of(ExecProbe(program("exit 0")).look(kNow), "exec.test"), "problem=0");
  const auto seen = ExecProbe(program("echo 'ntp is off'; echo more; exit 1")).look(kNow);
  EXPECT_EQ(values_of(seen, "exec.test"), "problem=1");
  EXPECT_EQ((*seen)[0].text, "ntp is off");
}

TEST_F(Programs, any_other_end_is_the_probes_failure) {
  for (const char* script : {"exit 2", "exit 127", "kill -9 $$"})
    EXPECT_FALSE(ExecProbe(program(script)).look(kNow)) << script;
  EXPECT_EQ(ExecProbe(program("echo why; exit 2")).look(kNow).error().message,
            folder_.path() + "/program ended with code 2, which says that it could not tell: why");
  EXPECT_FALSE(ExecProbe({"none", {"/nonexistent/program"}}).look(kNow));
}

TEST_F(Programs, is_ended_when_its_time_is_up_with_what_it_has_started) {
  const std::string file = folder_.path() + "/child";
  const auto outcome = run(program("sleep 600 & echo $! > " + file + "; wait", milliseconds(500)));
  ASSERT_TRUE(outcome) << outcome.error().message;
  EXPECT_TRUE(outcome->late);
  pid_t child = 0;
  std::ifstream(file) >> child;
  // Where the machine was so slow that the script had not come that far, there is nothing to look at.
  if (child == 0) return;
  const auto alive = [&] {
    std::string pid, name, state = "gone";
    std::ifstream("/proc/" + std::to_string(child) + "/stat") >> pid >> name >> state;
    return state != "gone" && state != "Z" && state != "X";
  };
  const auto until = std::chrono::steady_clock::now() + minutes(1);
  while (alive() && std::chrono::steady_clock::now() < until) sched_yield();
  EXPECT_FALSE(alive()) << "the program's child still sleeps";
}

TEST_F(Programs, output_is_bounded_and_has_nothing_of_the_agents_environment) {
  setenv("PITCREW_TEST_SECRET", "x", 1);
  const auto outcome = run(program("env; i=0; while [ $i -lt 2000 ]; do echo 0123456789; i=$((i+1)); done"));
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->code, 0);
  EXPECT_EQ(outcome->output.size(), 4096u);
  EXPECT_EQ(outcome->output.find("SECRET"), std::string::npos);
}

TEST(Program, is_refused_with_what_is_wrong) {
  const Program good{"ntp", {"/opt/checks/ntp"}};
  EXPECT_TRUE(good.validate().ok());
  Program wrong = good;
  wrong.command = {"ntp"};
  EXPECT_EQ(wrong.validate().error().message, "exec probe \"ntp\": its command must begin with a path from the root");
  wrong = good;
  wrong.name = "Ntp";
  EXPECT_FALSE(wrong.validate().ok());
  wrong = good;
  wrong.timeout = hours(1);
  EXPECT_FALSE(wrong.validate().ok());
  wrong = good;
  wrong.every = seconds(5);
  EXPECT_FALSE(wrong.validate().ok());
}

}  // namespace
}  // namespace pitcrew::agent::exec
