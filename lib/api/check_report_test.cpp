#include "lib/api/check_report.hpp"

#include <gtest/gtest.h>

namespace pitcrew::api {
namespace {

CheckTest test(const std::string& name, CheckOutcome outcome, const std::string& device = "",
               const std::string& message = "") {
  return {name, device, outcome, message, 1.5, {{"bandwidth", "GB/s", 3350.5, 2500.0}, {"errors", "", 0, {}}}};
}

CheckReport report(std::vector<CheckTest> tests) {
  return {"c1", "node-1",           "p5.48xlarge",   "cuda", Instant(seconds(1'700'000'000)),
          120,  {"GPU-0", "GPU-1"}, std::move(tests)};
}

TEST(CheckReport, reads_back_as_it_was_written) {
  const CheckReport whole = report({test("memory", CheckOutcome::kPassed, "GPU-0"),
                                    test("burn", CheckOutcome::kFailed, "GPU-1", "other bits than the rest"),
                                    test("collective", CheckOutcome::kSkipped)});
  const auto again = CheckReport::decode(whole.encode());
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(*again, whole);
  EXPECT_FALSE(CheckReport::decode(Json{{"form", "other"}}));
  EXPECT_FALSE(CheckReport::decode(Json::array()));
  Json wrong = whole.encode();
  wrong["tests"][0]["outcome"] = "Fine";
  EXPECT_FALSE(CheckReport::decode(wrong));
}

TEST(CheckReport, one_failure_fails_and_what_could_not_be_done_never_passes) {
  using enum CheckOutcome;
  EXPECT_EQ(report({}).outcome(), kUnknown);
  EXPECT_EQ(report({test("a", kSkipped)}).outcome(), kUnknown);
  EXPECT_EQ(report({test("a", kPassed), test("b", kSkipped)}).outcome(), kPassed);
  EXPECT_EQ(report({test("a", kPassed), test("b", kUnknown)}).outcome(), kUnknown);
  EXPECT_EQ(report({test("a", kUnknown), test("b", kFailed)}).outcome(), kFailed);
}

TEST(CheckReport, fits_into_a_termination_message_with_its_failures) {
  std::vector<CheckTest> tests;
  for (int gpu = 0; gpu < 8; ++gpu) {
    for (const char* name : {"memory", "burn", "host"}) {
      tests.push_back(
          test(name, CheckOutcome::kPassed, "GPU-00000000-0000-0000-0000-00000000000" + std::to_string(gpu)));
    }
  }
  tests.push_back(test("disk", CheckOutcome::kFailed, "/scratch", std::string(3000, 'x')));
  const CheckReport whole = report(tests);
  EXPECT_GT(whole.encode().dump().size(), 4096u);
  const std::string text = whole.encode_within(4096);
  EXPECT_LE(text.size(), 4096u);
  const auto again = CheckReport::decode(*parse_json(text));
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->outcome(), CheckOutcome::kFailed);
  EXPECT_EQ(again->results().size(), 4u);
  EXPECT_EQ(*CheckReport::decode(*parse_json(report({}).encode_within(4096))), report({})) << "what fits is whole";
  for (const size_t limit : {1000u, 400u, 300u}) EXPECT_LE(whole.encode_within(limit).size(), limit);
}

TEST(CheckReport, becomes_one_result_for_each_kind_of_test) {
  const auto results = report({test("memory", CheckOutcome::kPassed, "GPU-0"),
                               test("memory", CheckOutcome::kFailed, "GPU-1", "3 wrong words"),
                               test("efa", CheckOutcome::kSkipped), test("burn", CheckOutcome::kPassed)})
                           .results();
  ASSERT_EQ(results.size(), 2u);
  EXPECT_EQ(results[0], (CheckResult{"c1", "memory", CheckOutcome::kFailed, "GPU-1: 3 wrong words",
                                     Instant(seconds(1'700'000'000))}));
  EXPECT_EQ(results[1].outcome, CheckOutcome::kPassed);
}

}  // namespace
}  // namespace pitcrew::api
