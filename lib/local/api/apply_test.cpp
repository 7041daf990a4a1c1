#include "lib/local/api/apply.hpp"

#include <gtest/gtest.h>

namespace pitcrew::local {
namespace {

Json config(Json data) { return {{"apiVersion", "v1"}, {"metadata", {{"name", "a"}}}, {"data", std::move(data)}}; }
Result<Json> apply(const Json& stored, const Json& wanted, const std::string& manager, bool force = false) {
  return apply_config(stored, wanted, {manager, force, "", Instant(hours(1))});
}

TEST(Apply, fields_that_are_sent_no_more_go_and_those_of_others_stay) {
  const Json first = *apply(nullptr, config({{"x", "1"}, {"y", "1"}}), "us");
  const Json second = *apply(first, config({{"y", "1"}, {"z", "1"}}), "them");
  EXPECT_EQ(second["data"], Json({{"x", "1"}, {"y", "1"}, {"z", "1"}}));
  const Json third = *apply(second, config({{"w", "1"}}), "us");
  EXPECT_EQ(third["data"], Json({{"w", "1"}, {"y", "1"}, {"z", "1"}}));
}

TEST(Apply, another_value_of_somebody_elses_field_is_a_conflict_unless_forced) {
  const Json first = *apply(nullptr, config({{"x", "1"}}), "us");
  const auto refused = apply(first, config({{"x", "2"}}), "them");
  EXPECT_EQ(refused.error().code, Code::kConflict);
  EXPECT_NE(refused.error().message.find("conflict with \"us\": .data.x"), std::string::npos)
      << refused.error().message;
  const Json taken = *apply(first, config({{"x", "2"}}), "them", true);
  EXPECT_EQ(taken["data"]["x"], "2");
  // It is theirs now: that we send it no more changes nothing.
  EXPECT_EQ((*apply(taken, config(Json::object()), "us"))["data"]["x"], "2");
}

TEST(Apply, the_same_again_changes_nothing) {
  const Json first = *apply(nullptr, config({{"x", "1"}}), "us");
  EXPECT_EQ(*apply_config(first, config({{"x", "1"}}), {"us", false, "", Instant(hours(9))}), first);
}

TEST(Apply, lists_with_keys_are_merged_by_them) {
  const auto spec = [](Json containers) {
    return Json({{"metadata", {{"name", "a"}}}, {"spec", {{"containers", std::move(containers)}}}});
  };
  const Json first =
      *apply(nullptr, spec({{{"name", "main"}, {"image", "a"}}, {{"name", "old"}, {"image", "b"}}}), "us");
  const Json second = *apply(first, spec({{{"name", "side"}, {"image", "c"}}}), "them");
  const Json third = *apply(second, spec({{{"name", "main"}, {"image", "d"}}}), "us");
  EXPECT_EQ(third["spec"]["containers"],
            Json({{{"name", "main"}, {"image", "d"}}, {{"name", "side"}, {"image", "c"}}}));
}

}  // namespace
}  // namespace pitcrew::local
