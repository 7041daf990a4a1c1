#include "cli/run/chaos.hpp"

#include <algorithm>
#include <array>
#include <charconv>

namespace pitcrew::cli {
namespace {

constexpr std::array kKinds{ChaosKind::kKillNode, ChaosKind::kKillRank, ChaosKind::kHang, ChaosKind::kKillLauncher};

constexpr char kRemedy[] = "; write it like kill-node@60,kill-rank@120,hang@180,kill-launcher@240, or random:7";

std::optional<uint64_t> number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

Result<ChaosEvent> parse_event(std::string_view text) {
  const size_t at = text.find('@');
  const std::string_view name = text.substr(0, at);
  const auto step = at == std::string_view::npos ? std::nullopt : number(text.substr(at + 1));
  for (const ChaosKind kind : kKinds) {
    if (name == to_string(kind) && step) return ChaosEvent{kind, Step(*step)};
  }
  return Error(Code::kInvalidArgument, "--chaos: '" + std::string(text) + "' is no failure" + kRemedy);
}

}  // namespace

std::string_view to_string(ChaosKind kind) {
  switch (kind) {
    case ChaosKind::kKillNode:
      return "kill-node";
    case ChaosKind::kKillRank:
      return "kill-rank";
    case ChaosKind::kHang:
      return "hang";
    case ChaosKind::kKillLauncher:
      return "kill-launcher";
  }
  return "kill-rank";
}

Result<ChaosPlan> ChaosPlan::parse(std::string_view text) {
  ChaosPlan plan;
  if (text.starts_with("random:")) {
    const auto seed = number(text.substr(7));
    if (!seed)
      return Error(Code::kInvalidArgument,
                   "--chaos: '" + std::string(text) + "' needs a whole number as its seed" + kRemedy);
    plan.random_.emplace(*seed);
    plan.draw(Step(0));
    return plan;
  }
  while (!text.empty()) {
    const size_t comma = text.find(',');
    PITCREW_ASSIGN(const ChaosEvent event, parse_event(text.substr(0, comma)));
    plan.events_.push_back(event);
    if (comma == std::string_view::npos) break;
    text.remove_prefix(comma + 1);
    if (text.empty())
      return Error(Code::kInvalidArgument, std::string("--chaos: nothing stands behind the last comma") + kRemedy);
  }
  std::stable_sort(plan.events_.begin(), plan.events_.end(),
                   [](const ChaosEvent& a, const ChaosEvent& b) { return a.step < b.step; });
  return plan;
}

void ChaosPlan::draw(Step from) {
  const ChaosKind kind = kKinds[random_->below(kKinds.size())];
  events_.push_back({kind, Step(from.value + 40 + random_->below(80))});
}

std::optional<ChaosEvent> ChaosPlan::due(Step step) {
  if (events_.empty() || events_.front().step > step) return std::nullopt;
  const ChaosEvent event = events_.front();
  events_.erase(events_.begin());
  if (random_) draw(step);
  return event;
}

}  // namespace pitcrew::cli
