#include "lib/kube/http/json_slicer.hpp"

#include <vector>

#include <gtest/gtest.h>

#include "lib/base/json.hpp"
#include "lib/base/random.hpp"

namespace pitcrew::kube {
namespace {

struct Sliced {
  std::vector<std::string> values;
  std::vector<std::string> documents;
  Status status;
  bool complete = false;
};

Sliced slice(JsonSlicer::Settings settings, std::string_view text, size_t piece = std::string::npos) {
  Sliced sliced;
  JsonSlicer slicer(settings, {[&](std::string value) { sliced.values.push_back(std::move(value)); },
                               [&](std::string envelope) { sliced.documents.push_back(std::move(envelope)); }});
  while (!text.empty() && sliced.status) {
    sliced.status = slicer.feed(text.substr(0, piece));
    text.remove_prefix(std::min(piece, text.size()));
  }
  sliced.complete = slicer.complete();
  return sliced;
}

constexpr JsonSlicer::Settings kList{.slice = JsonSlicer::Slice::kItems};
constexpr JsonSlicer::Settings kWatch{.slice = JsonSlicer::Slice::kObject};

TEST(JsonSlicer, a_list_comes_apart_into_its_items_whatever_their_text) {
  const std::string text =
      R"( {"kind":"PodList","items":[ {"a":"}]\"\\"}, {"items":[{"b":1}]} ,{}],"metadata":{"items":[1]}} )";
  for (size_t piece = 1; piece <= text.size(); ++piece) {
    const Sliced sliced = slice(kList, text, piece);
    ASSERT_TRUE(sliced.status) << sliced.status.error().message;
    EXPECT_EQ(sliced.values, (std::vector<std::string>{R"({"a":"}]\"\\"})", R"({"items":[{"b":1}]})", "{}"}));
    ASSERT_EQ(sliced.documents.size(), 1u);
    EXPECT_EQ(Json::parse(sliced.documents[0]),
              Json({{"kind", "PodList"}, {"items", Json::array()}, {"metadata", {{"items", {1}}}}}));
    EXPECT_TRUE(sliced.complete);
  }
}

TEST(JsonSlicer, events_come_apart_with_and_without_lines_between_them) {
  const std::string text = R"({"type":"ADDED","object":{"object":{"type":"x"}}}
{"object":{},"type":"BOOKMARK"}{"type":"ERROR","object":null})";
  for (size_t piece = 1; piece <= text.size(); ++piece) {
    const Sliced sliced = slice(kWatch, text, piece);
    ASSERT_TRUE(sliced.status);
    EXPECT_EQ(sliced.values, (std::vector<std::string>{R"({"object":{"type":"x"}})", "{}"}));
    ASSERT_EQ(sliced.documents.size(), 3u);
    EXPECT_EQ(Json::parse(sliced.documents[0])["type"], "ADDED");
    EXPECT_EQ(Json::parse(sliced.documents[1])["type"], "BOOKMARK");
    EXPECT_EQ(Json::parse(sliced.documents[2])["type"], "ERROR");
  }
}

TEST(JsonSlicer, managed_fields_are_left_out_of_the_metadata_and_nowhere_else) {
  JsonSlicer::Settings settings = kList;
  settings.drop_managed_fields = true;
  const std::string text =
      R"({"items":[{"metadata":{"managedFields":[{"f":{"x":"]"}}],"name":"a","labels":{"managedFields":"v"}},)"
      R"("spec":{"managedFields":[1]}},{"managedFields":[2],"metadata":{"name":"b","managedFields":[]}}]})";
  for (const size_t piece : {size_t{1}, size_t{7}, text.size()}) {
    const Sliced sliced = slice(settings, text, piece);
    ASSERT_TRUE(sliced.status);
    EXPECT_EQ(Json::parse(sliced.values.at(0)),
              Json({{"metadata", {{"managedFields", nullptr}, {"name", "a"}, {"labels", {{"managedFields", "v"}}}}},
                    {"spec", {{"managedFields", {1}}}}}));
    EXPECT_EQ(Json::parse(sliced.values.at(1)),
              Json({{"managedFields", {2}}, {"metadata", {{"name", "b"}, {"managedFields", nullptr}}}}));
  }
}

TEST(JsonSlicer, what_is_no_object_is_data_loss) {
  for (const char* text : {"<html>", "\"text\"", "[1]", "{\"items\":[1]}", "{]", "}", "{\"items\":[\"a\"]}", "null"}) {
    EXPECT_EQ(slice(kList, text).status.error().code, Code::kDataLoss) << text;
  }
  EXPECT_EQ(slice(kList, std::string(1000, '{')).status.error().code, Code::kDataLoss);
}

TEST(JsonSlicer, sizes_are_bounded) {
  JsonSlicer::Settings settings = kList;
  settings.max_value_bytes = 100;
  settings.max_envelope_bytes = 100;
  const std::string filler(200, 'x');
  EXPECT_EQ(slice(settings, R"({"items":[{"a":")" + filler, 10).status.error().code, Code::kResourceExhausted);
  EXPECT_EQ(slice(settings, R"({"a":")" + filler, 10).status.error().code, Code::kResourceExhausted);
  std::string many = R"({"items":[{})";
  for (int i = 0; i < 1000; ++i) many += R"(,{"a":1})";
  EXPECT_EQ(slice(settings, many + "]}", 10).values.size(), 1001u);
}

TEST(JsonSlicer, an_unfinished_document_is_not_complete) {
  EXPECT_FALSE(slice(kWatch, R"({"type":"ADD)").complete);
  EXPECT_FALSE(slice(kWatch, R"({"type":"ADDED","object":{})").complete);
  EXPECT_TRUE(slice(kWatch, "\n").complete);
}

// Any bytes either come apart or are refused, and what comes out doesn't depend on how they were cut.
TEST(JsonSlicer, pieces_make_no_difference_for_random_bytes) {
  constexpr uint64_t kSeed = 20260401;
  RecordProperty("seed", std::to_string(kSeed));
  Random random(kSeed);
  static constexpr std::string_view kAlphabet = R"({}[]",:\ aitemsobjct1)";
  for (int round = 0; round < 20'000; ++round) {
    std::string text = round % 2 == 0 ? R"({"items":[)" : R"({"object":{)";
    const size_t length = random.below(40);
    for (size_t i = 0; i < length; ++i) text += kAlphabet[random.below(kAlphabet.size())];
    const JsonSlicer::Settings settings = round % 2 == 0 ? kList : kWatch;
    const Sliced whole = slice(settings, text);
    const Sliced pieces = slice(settings, text, 1 + random.below(5));
    ASSERT_EQ(whole.status.ok(), pieces.status.ok()) << text;
    ASSERT_EQ(whole.values, pieces.values) << text;
    ASSERT_EQ(whole.documents, pieces.documents) << text;
  }
}

}  // namespace
}  // namespace pitcrew::kube
