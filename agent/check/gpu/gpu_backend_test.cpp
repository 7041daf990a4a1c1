#include "agent/check/gpu/gpu_backend.hpp"

#include <cstdlib>

#include <gtest/gtest.h>

#include "agent/check/suite/suite.hpp"

namespace pitcrew::check {
namespace {

using api::CheckOutcome;

// What has not passed on the fake library's GPUs with this fault: "memory GPU-fake-1: words".
std::string bad_with(const char* gpus, const char* fault) {
  setenv("PITCREW_FAKE_GPUS", gpus, 1);
  setenv("PITCREW_FAKE_GPU_FAULT", fault, 1);
  auto backend = open_gpu_backend(PITCREW_FAKE_CHECK_CUDA);
  if (!backend) return backend.error().message;
  Settings settings;
  settings.expected = expectations_of((*backend)->devices()[0].model, agent::find_instance_type("p5en.48xlarge"));
  settings.expected.gpus = static_cast<unsigned>(std::atoi(gpus));
  std::string text;
  for (const auto& test : Suite(std::move(*backend), settings).run({}, [](const std::string&) {}).tests) {
    if (test.outcome == CheckOutcome::kPassed) continue;
    text += (text.empty() ? "" : "\n") + test.test + " " + test.device + ": " + test.message;
  }
  return text;
}

TEST(Gpu, sound_ones_pass_beside_what_their_machine_should_reach) { EXPECT_EQ(bad_with("8", ""), ""); }

TEST(Gpu, a_bad_one_is_named) {
  EXPECT_EQ(bad_with("3", "memory"), "memory GPU-fake-1: 1 wrong words, the first at offset 0x1000, bits 0x1");
  EXPECT_EQ(bad_with("3", "burn"), "burn GPU-fake-1: 1 of 8 repetitions gave other bits than most GPUs");
  EXPECT_EQ(bad_with("3", "broken"), "memory GPU-fake-1: memory: an uncorrectable ECC error");
}

TEST(Gpu, without_a_library_or_a_gpu_nothing_is_said_about_hardware) {
  EXPECT_EQ(bad_with("2", "none"), "look for GPUs: no CUDA-capable device is detected");
  const auto none = open_gpu_backend("/nonexistent/libpitcrew_check_cuda.so");
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, Code::kNotFound);
}

}  // namespace
}  // namespace pitcrew::check
