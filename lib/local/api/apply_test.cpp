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

std::string owners(const Json& object, const std::string& spec_field) {
  std::string text;
  for (const Json& entry : object["metadata"]["managedFields"]) {
    if (entry["fieldsV1"].contains("f:spec") && entry["fieldsV1"]["f:spec"].contains("f:" + spec_field))
      text += (text.empty() ? "" : " ") + entry["manager"].get<std::string>();
  }
  return text;
}
Json updated(const Json& old, Json next, const std::string& manager) {
  next["metadata"]["managedFields"] = managers_after_update(old, next, {manager, false, "", Instant(hours(1))});
  return next;
}

TEST(Managers, who_changes_a_field_by_an_update_has_it_and_nobody_else) {
  const Json node{{"metadata", {{"name", "n"}}}, {"spec", {{"taints", Json::array({1})}}}};
  Json cordoned = node;
  cordoned["spec"]["unschedulable"] = true;
  const Json ours = updated(node, cordoned, "us");
  EXPECT_EQ(owners(ours, "unschedulable"), "us");
  EXPECT_EQ(owners(ours, "taints"), "");
  // The same value again takes nothing over; what goes away is nobody's.
  EXPECT_EQ(owners(updated(ours, ours, "them"), "unschedulable"), "us");
  Json open = ours;
  open["spec"].erase("unschedulable");
  const Json opened = updated(ours, open, "them");
  EXPECT_EQ(owners(opened, "unschedulable"), "");
  Json again = opened;
  again["spec"]["unschedulable"] = true;
  EXPECT_EQ(owners(updated(opened, again, "them"), "unschedulable"), "them");
}

TEST(Managers, an_update_of_another_value_takes_an_applied_field_over) {
  const Json applied =
      *apply_config(nullptr, {{"metadata", {{"name", "n"}}}, {"spec", {{"unschedulable", true}, {"x", 1}}}},
                    {"us", false, "", Instant(hours(1))});
  Json next = applied;
  next["spec"]["unschedulable"] = false;
  const Json taken = updated(applied, next, "them");
  EXPECT_EQ(owners(taken, "unschedulable"), "them");
  EXPECT_EQ(owners(taken, "x"), "us");
}

TEST(Managers, elements_of_lists_with_keys_have_owners_of_their_own) {
  const auto status = [](Json conditions) {
    return Json({{"metadata", {{"name", "n"}}}, {"status", {{"conditions", std::move(conditions)}}}});
  };
  const Json first =
      updated(status({{{"type", "Ready"}, {"status", "True"}}}),
              status({{{"type", "Ready"}, {"status", "False"}}, {{"type", "Ours"}, {"status", "True"}}}), "us");
  const Json& fields = first["metadata"]["managedFields"][0]["fieldsV1"]["f:status"]["f:conditions"];
  EXPECT_EQ(fields, Json({{"k:{\"type\":\"Ours\"}", {{"f:status", Json::object()}, {"f:type", Json::object()}}},
                          {"k:{\"type\":\"Ready\"}", {{"f:status", Json::object()}}}}));
}

}  // namespace
}  // namespace pitcrew::local
