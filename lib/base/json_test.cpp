#include "lib/base/json.hpp"

#include <gtest/gtest.h>

#include "lib/base/json_selection.hpp"

namespace pitcrew {
namespace {

TEST(ObjectReader, collects_everything_that_is_wrong_at_once) {
  const Json json = Json::parse(R"({"count": -1, "name": 5, "wait": "ten", "colour": "red", "replicsa": 3})");
  Problems problems;
  ObjectReader reader(json, "spec", problems);
  uint32_t count = 7, replicas = 1;
  std::string name;
  Duration wait{0};
  int colour = 0;
  EXPECT_FALSE(reader.read("count", count));
  EXPECT_FALSE(reader.read("name", name));
  EXPECT_FALSE(reader.read("wait", wait));
  EXPECT_FALSE(reader.read("replicas", replicas));
  EXPECT_FALSE(reader.read_enum<int>("colour", colour, {{"green", 1}, {"blue", 2}}));
  reader.finish();
  EXPECT_EQ(count, 7u);
  EXPECT_EQ(problems, (Problems{{"spec.count", "-1 must not be negative"},
                                {"spec.name", "must be text, is a number"},
                                {"spec.wait", "'ten' is not a duration; write it like 30s, 10m, 1h30m or 72h"},
                                {"spec.colour", "'red' is none of: green, blue"},
                                {"spec.replicsa", "unknown field; did you mean 'replicas'?"}}));
}

TEST(ParseJson, a_repeated_key_and_deep_nesting_are_refused) {
  EXPECT_EQ(parse_json(R"({"a":1,"a":2})").error().message, "not valid JSON: the key 'a' is there twice");
  const std::string deep(200, '[');
  EXPECT_EQ(parse_json(deep).error().message, "not valid JSON: nested deeper than 128 levels");
}

TEST(ParseJson, numbers_that_do_not_fit_are_problems_not_wrapped) {
  const Json json = Json::parse(R"({"a": 4294967296, "b": 1.5, "c": 9223372036854775808})");
  Problems problems;
  ObjectReader reader(json, "", problems);
  uint32_t a = 0, b = 0;
  int64_t c = 0;
  reader.read("a", a);
  reader.read("b", b);
  reader.read("c", c);
  EXPECT_EQ(problems, (Problems{{"a", "4294967296 is too large"},
                                {"b", "must be a whole number, is a number"},
                                {"c", "9223372036854775808 is too large"}}));
}

TEST(JsonSelection, keeps_what_is_named_and_all_below_it) {
  const JsonSelection selection({"a", "b.c", "list.x", "list.y.z", "deep"});
  const auto kept = parse_json(R"({"a":{"q":[1,{"r":2}]},"no":{"a":{"a":[[1]]}},"b":{"c":[null],"d":1,"c2":{}},
    "list":[{"x":1,"w":{"x":1}},{"y":{"z":"s","v":[]}},3,[{"x":4,"w":5}]],"deep":"t","skip":"u"})",
                               selection);
  ASSERT_TRUE(kept) << kept.error().message;
  EXPECT_EQ(*kept, Json::parse(R"({"a":{"q":[1,{"r":2}]},"b":{"c":[null]},
    "list":[{"x":1},{"y":{"z":"s"}},3,[{"x":4}]],"deep":"t"})"));
}

TEST(JsonSelection, what_is_not_an_object_is_kept_where_one_was_expected) {
  const JsonSelection selection({"a.b"});
  EXPECT_EQ(*parse_json(R"({"a":"text","b":1})", selection), Json::parse(R"({"a":"text"})"));
  EXPECT_EQ(*parse_json(R"(["a",{"a":{"b":1,"c":2}}])", selection), Json::parse(R"(["a",{"a":{"b":1}}])"));
  EXPECT_EQ(*parse_json("3", selection), Json(3));
}

TEST(JsonSelection, what_is_passed_over_must_be_json_and_not_too_deep_either) {
  const JsonSelection selection({"a"});
  EXPECT_FALSE(parse_json(R"({"b":[1,}})", selection));
  EXPECT_FALSE(parse_json("{\"b\":" + std::string(128, '[') + std::string(128, ']') + "}", selection));
  EXPECT_TRUE(parse_json("{\"b\":" + std::string(120, '[') + std::string(120, ']') + "}", selection));
  EXPECT_FALSE(parse_json(R"({"a":1,"a":2})", selection));
}

}  // namespace
}  // namespace pitcrew
