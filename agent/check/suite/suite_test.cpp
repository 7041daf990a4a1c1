#include "agent/check/suite/suite.hpp"

#include <future>

#include <gtest/gtest.h>

#include "agent/check/suite/votes.hpp"

namespace pitcrew::check {
namespace {

using api::CheckOutcome;

std::string vote(const std::vector<std::vector<uint64_t>>& digests) {
  std::string text;
  for (const Vote& one : compare_burns(digests)) text += one.good ? '.' : 'x';
  return text;
}

TEST(Votes, most_decide_and_a_device_that_differs_once_is_bad) {
  EXPECT_EQ(vote({{1, 1}, {1, 1}, {1, 1}}), "...");
  EXPECT_EQ(vote({{1, 1}, {1, 2}, {1, 1}}), ".x.");
  EXPECT_EQ(vote({{2, 2, 2, 2, 2, 2, 2, 2}, {1}, {1}}), "x..") << "being fast does not outvote";
  EXPECT_EQ(vote({{1, 1}}), ".");
  EXPECT_EQ(vote({{1, 2, 1}}), "x") << "one device is compared with itself";
  EXPECT_EQ(vote({{1, 1}, {2, 2}}), "xx") << "nobody can tell which";
  EXPECT_EQ(vote({{1, 1}, {}, {1, 1}}), "...") << "a device that could not be asked is not voted on";
  EXPECT_EQ(vote({}), "");
}

TEST(Expectations, are_known_by_model_and_machine) {
  const auto h100 = expectations_of("NVIDIA H100 80GB HBM3", agent::find_instance_type("p5.48xlarge"));
  EXPECT_EQ(h100.gpus, 8u);
  EXPECT_EQ(h100.efa_devices, 32u);
  EXPECT_EQ(h100.collective_bandwidth, 500);
  EXPECT_NEAR(*h100.memory_bandwidth, 2512.5, 0.1);
  const auto unknown = expectations_of("NVIDIA H100 PCIe", nullptr);
  EXPECT_FALSE(unknown.memory_bandwidth || unknown.tensor_rate || unknown.collective_bandwidth);
  EXPECT_FALSE(expectations_of("NVIDIA B300", agent::find_instance_type("p6-b300.48xlarge")).collective_bandwidth);
}

TEST(Expectations, can_be_set_by_hand) {
  Expectations expected;
  EXPECT_TRUE(expected.set("host_bandwidth=40").ok());
  EXPECT_EQ(expected.host_bandwidth, 40);
  for (const char* wrong : {"host_bandwidth", "host_bandwidth=x", "speed=3", "host_bandwidth=-1"}) {
    EXPECT_FALSE(expected.set(wrong).ok()) << wrong;
  }
}

// One device whose memory test never ends, as in a driver that hangs.
class Hanging final : public Backend {
 public:
  explicit Hanging(std::shared_future<void> until) : until_(std::move(until)) {}
  std::string name() const override { return "hanging"; }
  const std::vector<Device>& devices() const override { return devices_; }
  Result<MemoryOutcome> memory(size_t device, double, Duration, uint64_t) override {
    if (device == 1) until_.wait();
    return MemoryOutcome{8, 1, 0, 0, 0, 1e9};
  }
  Result<BurnOutcome> burn(size_t, Duration, uint64_t) override { return Error(Code::kInternal, "not asked for"); }
  Result<HostOutcome> host(size_t device, Duration, uint64_t) override {
    return device == 0 ? Error(Code::kUnavailable, "no pinned memory") : Error(Code::kDataLoss, "an illegal address");
  }
  Result<CollectiveOutcome> all_reduce(Duration, uint64_t) override { return Error(Code::kInternal, "not asked for"); }

 private:
  std::shared_future<void> until_;
  std::vector<Device> devices_{{"a", "model", 8}, {"b", "model", 8}};
};

Settings settings_for(const char* test) {
  Settings settings;
  settings.tests = {test};
  settings.time = milliseconds(1);
  settings.limit = milliseconds(200);
  return settings;
}

TEST(Suite, a_device_that_hangs_is_a_failure_and_ends_the_check) {
  std::promise<void> end;
  const auto backend = std::make_shared<Hanging>(end.get_future().share());
  auto settings = settings_for("memory");
  settings.tests.insert("host");
  const auto outcome = Suite(backend, settings).run({}, [](const std::string&) {});
  EXPECT_TRUE(outcome.hangs);
  ASSERT_EQ(outcome.tests.size(), 2u) << "nothing comes after it";
  EXPECT_EQ(outcome.tests[1].device, "b");
  EXPECT_EQ(outcome.tests[1].outcome, CheckOutcome::kFailed);
  EXPECT_EQ(outcome.tests[1].message, "did not end within 200ms");
  end.set_value();
}

TEST(Suite, a_test_that_cannot_be_done_is_not_a_failure_and_one_that_breaks_off_is) {
  std::promise<void> end;
  end.set_value();
  auto settings = settings_for("host");
  settings.limit = minutes(5);
  const auto outcome =
      Suite(std::make_shared<Hanging>(end.get_future().share()), settings).run({}, [](const std::string&) {});
  ASSERT_EQ(outcome.tests.size(), 2u);
  EXPECT_EQ(outcome.tests[0].outcome, CheckOutcome::kUnknown);
  EXPECT_EQ(outcome.tests[0].message, "no pinned memory");
  EXPECT_EQ(outcome.tests[1].outcome, CheckOutcome::kFailed);
}

TEST(Suite, runs_other_tests_without_a_device) {
  const OtherTest disk{"disk", [] {
                         return std::vector<api::CheckTest>{{"disk", "/x", CheckOutcome::kPassed, "", 0, {}}};
                       }};
  auto settings = settings_for("disk");
  settings.limit = minutes(5);
  const auto outcome = Suite(nullptr, settings).run({disk}, [](const std::string&) {});
  ASSERT_EQ(outcome.tests.size(), 1u);
  EXPECT_EQ(outcome.tests[0].device, "/x");
}

}  // namespace
}  // namespace pitcrew::check
