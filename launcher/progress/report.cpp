#include "launcher/progress/report.hpp"

#include <cmath>

namespace pitcrew::launcher {
namespace {

constexpr size_t kMostSuspects = 64;  // of one pod; a message stays small

}  // namespace

bool PageUse::without_page(Instant now, std::span<const RankView> ranks) {
  bool alive = false;
  for (const RankView& rank : ranks) {
    used_ = used_ || rank.line.updates > 0;
    alive = alive || rank.alive;
  }
  if (used_ || !alive) return false;
  missed_ = missed_ || now - started_ >= kPatience;
  return missed_;
}

api::channel::Progress make_progress(const ReportInput& input) {
  api::channel::Progress progress;
  progress.epoch = input.epoch;
  const RankView* slowest = nullptr;
  for (const RankView& rank : input.ranks) {
    const page::LineCopy& line = rank.line;
    const auto order = [](const page::LineCopy& l) { return std::pair(l.step, static_cast<int>(l.phase)); };
    if (slowest == nullptr || order(line) < order(slowest->line)) slowest = &rank;
    progress.lost_peer = progress.lost_peer || line.phase == page::Phase::kLostPeer;
  }
  if (slowest != nullptr) {
    progress.step = slowest->line.step;
    progress.samples = slowest->line.samples;
    progress.phase = page::to_string(progress.lost_peer ? page::Phase::kLostPeer : slowest->line.phase);
  }
  if (progress.lost_peer) progress.lost_rank = input.lost_rank;
  if (input.without_page) progress.phase = api::channel::kWithoutPage;
  if (input.first_rank == Rank(0) && !input.ranks.empty()) {
    const page::LineCopy& zero = input.ranks[0].line;
    if (zero.updates > 0 && std::isfinite(zero.loss)) progress.loss = zero.loss;
    progress.durable_step = input.header.durable_step;
    progress.memory_step = input.header.memory_step;
    progress.total_steps = input.header.total_steps;
    progress.tokens_per_second = input.samples_per_second * static_cast<double>(input.header.tokens_per_sample);
    // The page's word for "from the beginning" is the word for "not known yet": past restoring it is the former.
    const bool voted = zero.updates > 0 && zero.phase > page::Phase::kRestoring;
    if (input.header.resumed_step) {
      progress.resumed_step = input.header.resumed_step;
      progress.resumed_source = page::to_string(input.header.resumed_source);
    } else if (voted) {
      progress.resumed_source = "none";
    }
  }
  return progress;
}

bool important(const api::channel::Progress& before, const api::channel::Progress& after) {
  return before.epoch != after.epoch || before.phase != after.phase || before.durable_step != after.durable_step ||
         before.memory_step != after.memory_step || before.resumed_step != after.resumed_step ||
         before.resumed_source != after.resumed_source || before.lost_peer != after.lost_peer ||
         before.lost_rank != after.lost_rank || (before.step == Step(0) && after.step > Step(0));
}

api::channel::Stalled make_stalled(const Stall& stall, EpochId epoch, Rank first_rank,
                                   std::span<const RankView> ranks) {
  api::channel::Stalled message;
  message.epoch = epoch;
  message.step = stall.step;
  message.phase = page::to_string(stall.phase);
  message.seconds = to_seconds(stall.without_progress);
  message.limit_seconds = to_seconds(stall.limit);
  for (uint32_t i = 0; i < ranks.size() && i < kMostSuspects; ++i) {
    // Programs without the page have no words to compare.
    if (!ranks[i].alive || ranks[i].line.updates == 0) continue;
    message.ranks.push_back({Rank(first_rank.value + i), ranks[i].line.collective, ranks[i].line.in_collective,
                             ranks[i].line.gpu_behind()});
  }
  return message;
}

}  // namespace pitcrew::launcher
