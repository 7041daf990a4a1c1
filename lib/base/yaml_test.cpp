#include "lib/base/yaml.hpp"

#include <gtest/gtest.h>

namespace pitcrew {
namespace {

TEST(Yaml, plain_scalars_get_the_types_of_the_core_schema) {
  const auto documents = parse_yaml("a: 1\nb: -2\nc: 1.5\nd: true\ne: ~\nf: '1'\ng: 10m\nh: 0x10\ni: \"true\"\n");
  ASSERT_TRUE(documents.ok()) << documents.error().message;
  EXPECT_EQ((*documents)[0].json,
            Json::parse(R"({"a":1,"b":-2,"c":1.5,"d":true,"e":null,"f":"1","g":"10m","h":16,"i":"true"})"));
}

TEST(Yaml, every_path_knows_its_line_and_an_absent_one_its_parents) {
  const auto documents = parse_yaml("spec:\n  a:\n    - x: 1\n    - x: 2\n  b: 3\n");
  ASSERT_TRUE(documents.ok());
  const YamlDocument& document = (*documents)[0];
  EXPECT_EQ(document.line_of("spec.a[1].x"), 4);
  EXPECT_EQ(document.line_of("spec.a"), 2);
  EXPECT_EQ(document.line_of("spec.b"), 5);
  EXPECT_EQ(document.line_of("spec.a[1].missing"), 4);
  EXPECT_EQ(document.line_of("nothing"), 1);
}

TEST(Yaml, a_repeated_key_is_an_error_with_its_line) {
  const auto documents = parse_yaml("spec:\n  a: 1\n  b: 2\n  a: 3\n");
  ASSERT_FALSE(documents.ok());
  EXPECT_EQ(documents.error().message, "line 4: 'spec.a' is there twice; keep one of the two");
}

TEST(Yaml, bad_syntax_names_its_line) {
  const auto documents = parse_yaml("a: 1\nb: [1, 2\n");
  ASSERT_FALSE(documents.ok());
  EXPECT_NE(documents.error().message.find("not valid YAML"), std::string::npos);
}

TEST(Yaml, aliases_that_multiply_are_stopped) {
  std::string bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n";
  for (int i = 1; i < 9; ++i) {
    const std::string before = "*a" + std::to_string(i - 1);
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + before;
    for (int k = 0; k < 9; ++k) bomb += "," + before;
    bomb += "]\n";
  }
  const auto documents = parse_yaml(bomb);
  ASSERT_FALSE(documents.ok());
  EXPECT_NE(documents.error().message.find("more than 100000 nodes"), std::string::npos);
}

TEST(Yaml, a_stray_comma_ends_with_an_error_and_not_never) {
  EXPECT_FALSE(parse_yaml(", or a quantity lik").ok());
  EXPECT_FALSE(parse_yaml("]").ok());
}

TEST(Yaml, an_anchor_may_be_used_again_and_a_key_must_be_text) {
  const auto documents = parse_yaml("a: &x {b: 1}\nc: *x\n");
  ASSERT_TRUE(documents.ok()) << documents.error().message;
  EXPECT_EQ((*documents)[0].json, Json::parse(R"({"a":{"b":1},"c":{"b":1}})"));
  EXPECT_EQ(parse_yaml("[1, 2]: x\n").error().message, "line 1: a key must be text");
}

TEST(Yaml, several_documents_are_read_and_empty_ones_passed_over) {
  const auto documents = parse_yaml("a: 1\n---\n---\nb: 2\n");
  ASSERT_TRUE(documents.ok());
  EXPECT_EQ(documents->size(), 2u);
}

}  // namespace
}  // namespace pitcrew
