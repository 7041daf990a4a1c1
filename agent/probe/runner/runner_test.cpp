#include "agent/probe/runner/runner.hpp"

#include <future>

#include <gtest/gtest.h>

namespace pitcrew::agent {
namespace {

const Instant kNow = Instant(seconds(1'700'000'000));

ProbeTask task(std::string name, std::function<Result<std::vector<Observation>>(Instant)> look) {
  return {std::move(name), seconds(30), seconds(5), std::move(look)};
}

Result<std::vector<Observation>> one_reading(Instant now) {
  Observation observation;
  observation.kind = "gpu.count";
  observation.time = now;
  return std::vector<Observation>{observation};
}

std::string words(const std::vector<Observation>& observations) {
  std::string text;
  for (const Observation& one : observations) {
    text += (text.empty() ? "" : " ") + one.kind;
    if (one.kind == kinds::kProbe) text += "(" + one.word("probe") + " " + one.word("ok") + ")";
  }
  return text;
}

TEST(ProbeRunner, looks_at_once_and_then_at_its_interval) {
  ProbeRunner runner({task("count", one_reading)});
  EXPECT_EQ(words(runner.poll(kNow)), "");
  ASSERT_TRUE(runner.settle(seconds(60)));
  EXPECT_EQ(words(runner.poll(kNow + seconds(1))), "gpu.count probe(count 1)");
  EXPECT_EQ(words(runner.poll(kNow + seconds(29))), "");
  EXPECT_EQ(runner.next(kNow + seconds(29)), kNow + seconds(30));
  EXPECT_EQ(words(runner.poll(kNow + seconds(30))), "");
  ASSERT_TRUE(runner.settle(seconds(60)));
  EXPECT_EQ(words(runner.poll(kNow + seconds(31))), "gpu.count probe(count 1)");
}

TEST(ProbeRunner, says_that_a_probe_failed_and_nothing_about_devices) {
  ProbeRunner runner({task(
      "ecc", [](Instant) -> Result<std::vector<Observation>> { return Error(Code::kUnavailable, "no driver"); })});
  runner.poll(kNow);
  ASSERT_TRUE(runner.settle(seconds(60)));
  const auto seen = runner.poll(kNow + seconds(1));
  EXPECT_EQ(words(seen), "probe(ecc 0)");
  EXPECT_EQ(seen[0].text, "ecc: no driver");
}

TEST(ProbeRunner, tells_the_end_of_a_look_so_that_nobody_has_to_ask) {
  std::promise<void> ended;
  ProbeRunner runner({task("count", one_reading)}, [&ended] { ended.set_value(); });
  runner.poll(kNow);

  ASSERT_EQ(ended.get_future().wait_for(std::chrono::seconds(60)), std::future_status::ready);
  EXPECT_EQ(words(runner.poll(kNow + seconds(1))), "gpu.count probe(count 1)");
  EXPECT_EQ(runner.next(kNow + seconds(1)), kNow + seconds(30));
}

TEST(ProbeRunner, a_probe_that_hangs_blocks_no_other) {
  std::promise<void> release;
  std::shared_future<void> released = release.get_future().share();
  ProbeRunner runner({task("stuck", [released](Instant now) { return released.wait(), one_reading(now); }),
                      task("count", one_reading)});
  runner.poll(kNow);
  std::string seen;
  while (seen.empty()) seen = words(runner.poll(kNow + seconds(1)));
  EXPECT_EQ(seen, "gpu.count probe(count 1)");
  EXPECT_EQ(words(runner.poll(kNow + seconds(6))), "probe(stuck 0)");
  EXPECT_EQ(words(runner.poll(kNow + seconds(7))), "") << "said once";
  release.set_value();
  ASSERT_TRUE(runner.settle(seconds(60)));
  EXPECT_EQ(words(runner.poll(kNow + seconds(8))), "gpu.count probe(stuck 1)");
}

TEST(ProbeRunner, ends_though_a_probe_hangs) {
  auto release = std::make_shared<std::promise<void>>();
  std::shared_future<void> released = release->get_future().share();
  std::promise<void> begun, ended;
  auto done = ended.get_future();
  {
    ProbeRunner runner({task("stuck", [released, &begun, &ended](Instant now) {
      begun.set_value();
      released.wait();
      ended.set_value();
      return one_reading(now);
    })});
    runner.poll(kNow);
    begun.get_future().wait();
    EXPECT_EQ(words(runner.poll(kNow + seconds(6))), "probe(stuck 0)");
  }
  release->set_value();
  done.wait();
}

}  // namespace
}  // namespace pitcrew::agent
