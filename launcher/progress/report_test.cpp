#include "launcher/progress/report.hpp"

#include <cmath>

#include <gtest/gtest.h>

namespace pitcrew::launcher {
namespace {

RankView rank(uint64_t step, page::Phase phase, double loss = 2.5) {
  RankView view;
  view.line.updates = 1;
  view.line.step = Step(step);
  view.line.samples = step * 8;
  view.line.phase = phase;
  view.line.loss = loss;
  return view;
}

TEST(Report, is_of_the_slowest_rank) {
  const std::vector<RankView> ranks{rank(12, page::Phase::kTraining), rank(11, page::Phase::kTraining),
                                    rank(12, page::Phase::kSaving)};
  const auto progress = make_progress({.first_rank = Rank(4), .ranks = ranks});
  EXPECT_EQ(progress.step, Step(11));
  EXPECT_EQ(progress.samples, 88u);
  EXPECT_EQ(progress.phase, "training");
  EXPECT_FALSE(progress.loss) << "rank 0's launcher alone tells the loss";
}

TEST(Report, of_rank_0_carries_the_pages_words) {
  page::HeaderCopy header;
  header.total_steps = 100;
  header.tokens_per_sample = 512;
  header.durable_step = Step(10);
  header.resumed_step = Step(5);
  header.resumed_source = page::Source::kPeerMemory;
  const std::vector<RankView> ranks{rank(12, page::Phase::kTraining)};
  const auto progress = make_progress({.header = header, .ranks = ranks, .samples_per_second = 16});
  EXPECT_EQ(progress.loss, 2.5);
  EXPECT_EQ(progress.total_steps, 100u);
  EXPECT_EQ(progress.tokens_per_second, 8192);
  EXPECT_EQ(progress.durable_step, Step(10));
  EXPECT_EQ(progress.resumed_step, Step(5));
  EXPECT_EQ(progress.resumed_source, "peer memory");
}

TEST(Report, says_from_the_beginning_only_once_the_ranks_have_voted) {
  std::vector<RankView> ranks{rank(0, page::Phase::kRestoring)};
  EXPECT_EQ(make_progress({.ranks = ranks}).resumed_source, "");
  ranks[0].line.phase = page::Phase::kFirstStep;
  EXPECT_EQ(make_progress({.ranks = ranks}).resumed_source, "none");
}

TEST(Report, a_loss_that_is_no_number_is_left_out) {
  const std::vector<RankView> ranks{rank(1, page::Phase::kTraining, std::nan(""))};
  EXPECT_FALSE(make_progress({.ranks = ranks}).loss);
}

TEST(Report, a_lost_peer_on_any_rank_is_told_with_whom) {
  const std::vector<RankView> ranks{rank(12, page::Phase::kTraining), rank(12, page::Phase::kLostPeer)};
  const auto progress = make_progress({.ranks = ranks, .lost_rank = Rank(9)});
  EXPECT_TRUE(progress.lost_peer);
  EXPECT_EQ(progress.phase, "lost peer");
  EXPECT_EQ(progress.lost_rank, Rank(9));
}

TEST(Report, changes_that_matter_are_told_at_once_and_steps_are_not) {
  api::channel::Progress before;
  before.step = Step(5);
  before.phase = "training";
  auto after = before;
  after.step = Step(6);
  after.samples = 10;
  after.tokens_per_second = 5;
  EXPECT_FALSE(important(before, after));
  after.durable_step = Step(6);
  EXPECT_TRUE(important(before, after));
  after = before;
  after.phase = "saving";
  EXPECT_TRUE(important(before, after));
  after = before;
  after.lost_peer = true;
  EXPECT_TRUE(important(before, after));
  before.step = Step(0);
  after = before;
  after.step = Step(1);
  EXPECT_TRUE(important(before, after)) << "the first step";
}

TEST(Report, a_stall_tells_all_ranks_that_have_a_page_so_that_pods_can_be_compared) {
  std::vector<RankView> ranks{rank(12, page::Phase::kTraining), rank(12, page::Phase::kTraining), RankView{}};
  ranks[0].line.collective = 7;
  ranks[0].line.in_collective = true;
  const auto message = make_stalled({.step = Step(12), .without_progress = seconds(12), .limit = seconds(10)},
                                    {Term(1), EpochNumber(2)}, Rank(4), ranks);
  EXPECT_EQ(message.step, Step(12));
  EXPECT_EQ(message.seconds, 12);
  EXPECT_EQ(message.limit_seconds, 10);
  ASSERT_EQ(message.ranks.size(), 2u);
  EXPECT_EQ(message.ranks[0].rank, Rank(4));
  EXPECT_EQ(message.ranks[0].collective, 7u);
  EXPECT_TRUE(message.ranks[0].in_collective);
}

TEST(PageUse, a_program_is_without_the_page_once_it_was_silent_for_long_and_at_once_in_later_epochs) {
  PageUse use;
  const std::vector<RankView> silent(2);
  const Instant start(seconds(100));
  use.ranks_started(start);
  EXPECT_FALSE(use.without_page(start + PageUse::kPatience - milliseconds(1), silent));
  EXPECT_TRUE(use.without_page(start + PageUse::kPatience, silent));
  use.ranks_started(start + minutes(5));
  EXPECT_TRUE(use.without_page(start + minutes(5), silent));
  EXPECT_EQ(make_progress({.ranks = silent, .without_page = true}).phase, api::channel::kWithoutPage);
}

TEST(PageUse, one_word_of_one_rank_is_enough_for_ever) {
  PageUse use;
  std::vector<RankView> ranks(2);
  use.ranks_started(Instant());
  EXPECT_TRUE(use.without_page(Instant(minutes(1)), ranks)) << "a slow start";
  ranks[1] = rank(0, page::Phase::kRestoring);
  EXPECT_FALSE(use.without_page(Instant(minutes(2)), ranks));
  ranks[1] = RankView();
  use.ranks_started(Instant(minutes(3)));
  EXPECT_FALSE(use.without_page(Instant(hours(1)), ranks));
}

TEST(PageUse, ranks_that_have_ended_run_nothing) {
  PageUse use;
  std::vector<RankView> ranks(1);
  ranks[0].alive = false;
  use.ranks_started(Instant());
  EXPECT_FALSE(use.without_page(Instant(hours(1)), ranks));
}

}  // namespace
}  // namespace pitcrew::launcher
