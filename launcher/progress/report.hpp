#pragma once

#include <span>

#include "launcher/progress/judge.hpp"
#include "lib/api/channel.hpp"

namespace pitcrew::launcher {

// What the operator is told of the ranks of this pod: the slowest rank's step and phase, rank 0's loss, the page's
// words.
struct ReportInput {
  EpochId epoch;
  Rank first_rank;
  page::HeaderCopy header;
  std::span<const RankView> ranks;
  double samples_per_second = 0;
  std::optional<Rank> lost_rank;  // from a rank's `evidence`
};
api::channel::Progress make_progress(const ReportInput& input);

// Whether the difference is worth a message at once: a phase, a checkpoint, what was resumed from, a lost peer, the
// first step of the epoch.
bool important(const api::channel::Progress& before, const api::channel::Progress& after);

api::channel::Stalled make_stalled(const Stall& stall, EpochId epoch, Rank first_rank, std::span<const RankView> ranks);

}  // namespace pitcrew::launcher
