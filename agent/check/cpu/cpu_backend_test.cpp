#include "agent/check/cpu/cpu_backend.hpp"

#include <gtest/gtest.h>

#include "agent/check/suite/suite.hpp"
#include "agent/check/suite/table.hpp"

namespace pitcrew::check {
namespace {

using api::CheckOutcome;
using api::CheckTest;

CpuSettings small(size_t devices = 3) {
  CpuSettings settings;
  settings.devices = devices;
  settings.memory_bytes = 1 << 20;
  settings.matrix = 32;
  return settings;
}

Settings quick() {
  Settings settings;
  settings.time = milliseconds(1);
  settings.limit = minutes(5);
  return settings;
}

std::vector<CheckTest> run(CpuSettings cpu, const Settings& settings = quick()) {
  std::shared_ptr<Backend> backend = std::move(*make_cpu_backend(std::move(cpu)));
  const auto outcome = Suite(backend, settings).run({}, [](const std::string&) {});
  EXPECT_FALSE(outcome.hangs);
  return outcome.tests;
}

// "burn cpu-1: message" of what has not passed.
std::string bad(const std::vector<CheckTest>& tests) {
  std::string text;
  for (const CheckTest& test : tests) {
    if (test.outcome == CheckOutcome::kPassed) continue;
    text += (text.empty() ? "" : "\n") + test.test + " " + test.device + " " + std::string(to_string(test.outcome)) +
            ": " + test.message;
  }
  return text;
}

TEST(Cpu, a_sound_processor_passes_every_test) {
  const auto tests = run(small());
  EXPECT_EQ(bad(tests), "");
  EXPECT_EQ(tests.size(), 3u * 3 + 1) << "memory, burn and host for each, and one collective";
  for (const CheckTest& test : tests) {
    for (const api::CheckFigure& figure : test.figures) EXPECT_GT(figure.value, 0) << test.test << " " << figure.name;
  }
}

TEST(Cpu, the_same_seed_gives_the_same_bits_on_every_thread_and_another_seed_others) {
  const auto backend = std::move(*make_cpu_backend(small()));
  const auto first = backend->burn(0, Duration(0), 7), second = backend->burn(1, Duration(0), 7);
  EXPECT_EQ(first->digests.size(), 2u);
  EXPECT_EQ(first->digests, second->digests);
  EXPECT_NE(first->digests, backend->burn(0, Duration(0), 8)->digests);
}

TEST(Cpu, a_bit_that_sticks_is_found_with_its_place) {
  CpuSettings settings = small();
  settings.bend_memory = [](size_t device, std::span<uint64_t> words) {
    if (device == 1) words[1000] |= 1u << 5;
  };
  const auto tests = run(settings);
  EXPECT_TRUE(bad(tests).starts_with("memory cpu-1 Failed: ")) << bad(tests);
  EXPECT_NE(bad(tests).find("the first at offset 0x1f40, bits 0x20"), std::string::npos) << bad(tests);
  EXPECT_EQ(bad(tests).find('\n'), std::string::npos);
}

TEST(Cpu, a_device_that_computes_one_bit_wrong_is_found_by_the_others) {
  CpuSettings settings = small();
  settings.bend_product = [](size_t device, size_t repetition, std::span<float> product) {
    if (device == 2 && repetition == 1) product[17] = -product[17];
  };
  const std::string found = bad(run(settings));
  EXPECT_TRUE(found.starts_with("burn cpu-2 Failed: 1 of ")) << found;
  EXPECT_TRUE(found.ends_with("gave other bits than most GPUs")) << found;
}

TEST(Cpu, what_falls_short_of_the_expectation_fails_with_both_numbers) {
  Settings settings = quick();
  settings.tests = {"host"};
  settings.expected.host_bandwidth = 1e9;
  const std::string found = bad(run(small(1), settings));
  EXPECT_NE(found.find("GB/s, expected at least 1000000000"), std::string::npos) << found;
}

TEST(Cpu, one_device_has_nobody_to_talk_to) {
  EXPECT_EQ(bad(run(small(1))), "collective  Skipped: one GPU has nobody to talk to");
}

TEST(Cpu, missing_devices_are_a_failure) {
  Settings settings = quick();
  settings.expected.gpus = 8;
  EXPECT_EQ(bad(run(small(7), settings)), "count  Failed: 7 GPUs, the instance type has 8");
}

TEST(Cpu, settings_that_make_no_sense_are_refused) {
  CpuSettings none;
  none.devices = 0;
  EXPECT_FALSE(make_cpu_backend(none));
  Settings settings;
  settings.tests = {"memory", "nothing"};
  EXPECT_FALSE(settings.validate().ok());
}

TEST(Table, has_a_line_for_each_test_and_the_outcome_at_its_end) {
  api::CheckReport report{.node = "node-1", .instance = "p5.48xlarge", .backend = "cuda"};
  report.tests.push_back(
      {"memory", "GPU-0", CheckOutcome::kPassed, "", 20.25, {{"bandwidth", "GB/s", 2890.4, 2512.5}}});
  report.tests.push_back({"burn", "GPU-0", CheckOutcome::kFailed, "1 of 9 repetitions", 21, {}});
  EXPECT_EQ(to_table(report),
            "TEST    DEVICE  OUTCOME  SECONDS  FIGURES\n"
            "memory  GPU-0   Passed   20.2     bandwidth 2890 GB/s (least 2512)\n"
            "burn    GPU-0   Failed   21.0     1 of 9 repetitions\n"
            "\n"
            "node node-1 (p5.48xlarge) by cuda: Failed\n");
}

}  // namespace
}  // namespace pitcrew::check
