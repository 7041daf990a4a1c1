// The library on the GPUs of this machine; skipped where there is none. Figures are printed, so that they can be kept.
#include <iostream>

#include <gtest/gtest.h>

#include "agent/check/gpu/gpu_backend.hpp"
#include "agent/check/suite/suite.hpp"
#include "agent/check/suite/table.hpp"

namespace pitcrew::check {
namespace {

TEST(CheckCuda, every_test_passes_on_the_gpus_of_this_machine) {
  auto opened = open_gpu_backend(PITCREW_CHECK_CUDA_LIBRARY);
  if (!opened && opened.error().code == Code::kUnavailable) GTEST_SKIP() << opened.error().message;
  ASSERT_TRUE(opened) << opened.error().message;
  const std::shared_ptr<Backend> backend = std::move(*opened);
  Settings settings;
  settings.time = seconds(3);
  settings.expected = expectations_of(backend->devices()[0].model, nullptr);
  api::CheckReport report{.backend = backend->name()};
  report.tests = Suite(backend, settings).run({}, [](const std::string&) {}).tests;
  std::cout << backend->devices()[0].model << "\n" << to_table(report);
  for (const api::CheckTest& test : report.tests) {
    // NCCL may be absent, and one GPU has nobody to talk to; nothing may fail.
    EXPECT_NE(test.outcome, api::CheckOutcome::kFailed) << test.test << " " << test.device << ": " << test.message;
    if (test.test == "collective") continue;
    EXPECT_EQ(test.outcome, api::CheckOutcome::kPassed) << test.test << ": " << test.message;
  }
}

TEST(CheckCuda, the_same_seed_gives_the_same_bits_twice) {
  auto opened = open_gpu_backend(PITCREW_CHECK_CUDA_LIBRARY);
  if (!opened && opened.error().code == Code::kUnavailable) GTEST_SKIP() << opened.error().message;
  ASSERT_TRUE(opened) << opened.error().message;
  const auto first = (*opened)->burn(0, Duration(0), 7), second = (*opened)->burn(0, Duration(0), 7);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(first->digests, second->digests);
  EXPECT_NE(first->digests, (*opened)->burn(0, Duration(0), 8)->digests);
}

}  // namespace
}  // namespace pitcrew::check
