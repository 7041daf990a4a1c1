#include "trainer/train/attention_choice.hpp"

#include <vector>

#include <gtest/gtest.h>

namespace pitcrew::trainer {
namespace {

const std::optional<AttentionEngine> kAuto;

TEST(AttentionChoice, is_cudnn_where_all_ranks_have_the_same) {
  const std::vector<uint64_t> versions{91901, 91901};
  for (const auto asked : {kAuto, std::optional(AttentionEngine::kCudnn)}) {
    const auto choice = choose_together(asked, versions, "");
    ASSERT_TRUE(choice.ok());
    EXPECT_EQ(choice->engine, AttentionEngine::kCudnn);
    EXPECT_EQ(choice->line, "attention by cuDNN 9.19.1");
  }
}

TEST(AttentionChoice, own_is_asked_for_without_a_word) {
  const auto choice = choose_together(AttentionEngine::kOwn, std::vector<uint64_t>{91901, 0}, "no such library");
  ASSERT_TRUE(choice.ok());
  EXPECT_EQ(choice->engine, AttentionEngine::kOwn);
  EXPECT_TRUE(choice->line.empty());
}

TEST(AttentionChoice, what_one_rank_lacks_none_uses_and_everybody_says_so) {
  const std::vector<uint64_t> versions{91901, 0};
  const auto here = choose_together(kAuto, versions, "load cuDNN: no such library");
  ASSERT_TRUE(here.ok());
  EXPECT_EQ(here->engine, AttentionEngine::kOwn);
  EXPECT_EQ(here->line, "attention by own kernels: load cuDNN: no such library");
  const auto there = choose_together(kAuto, versions, "");
  ASSERT_TRUE(there.ok());
  EXPECT_EQ(there->engine, AttentionEngine::kOwn);
  EXPECT_NE(there->line.find("rank 1 can't use cuDNN"), std::string::npos) << there->line;
}

TEST(AttentionChoice, other_versions_would_give_other_bits) {
  const auto choice = choose_together(kAuto, std::vector<uint64_t>{91901, 91901, 92100}, "");
  ASSERT_TRUE(choice.ok());
  EXPECT_EQ(choice->engine, AttentionEngine::kOwn);
  EXPECT_NE(choice->line.find("rank 2 has cuDNN 9.21.0, rank 0 has 9.19.1"), std::string::npos) << choice->line;
}

TEST(AttentionChoice, demanded_and_missing_is_an_error) {
  const auto choice = choose_together(AttentionEngine::kCudnn, std::vector<uint64_t>{0}, "load cuDNN: too old");
  ASSERT_FALSE(choice.ok());
  EXPECT_EQ(choice.error().code, Code::kUnsupported);
  EXPECT_EQ(choice.error().message, "attention: cudnn: load cuDNN: too old");
}

}  // namespace
}  // namespace pitcrew::trainer
