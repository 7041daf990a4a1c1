#pragma once

#include <span>

#include "launcher/progress/judge.hpp"
#include "lib/api/channel.hpp"

namespace pitcrew::launcher {

// Whether the program writes to the progress page at all. One that has not within kPatience is taken for one that never
// will, in later epochs from their beginning, until it does.
class PageUse {
 public:
  static constexpr Duration kPatience = seconds(30);

  void ranks_started(Instant now) { started_ = now; }
  // Looks at the ranks; returns whether they are to be reported as running without the page.
  bool without_page(Instant now, std::span<const RankView> ranks);

 private:
  Instant started_;
  bool used_ = false;
  bool missed_ = false;
};

// What the operator is told of the ranks of this pod: the slowest rank's step and phase, rank 0's loss, the page's
// words.
struct ReportInput {
  EpochId epoch;
  Rank first_rank;
  page::HeaderCopy header;
  std::span<const RankView> ranks;
  double samples_per_second = 0;
  std::optional<Rank> lost_rank;  // from a rank's `evidence`
  bool without_page = false;
};
api::channel::Progress make_progress(const ReportInput& input);

// Whether the difference is worth a message at once: a phase, a checkpoint, what was resumed from, a lost peer, the
// first step of the epoch.
bool important(const api::channel::Progress& before, const api::channel::Progress& after);

api::channel::Stalled make_stalled(const Stall& stall, EpochId epoch, Rank first_rank, std::span<const RankView> ranks);

}  // namespace pitcrew::launcher
