#include "launcher/memory/silence.hpp"

namespace pitcrew::launcher {
namespace {

constexpr Duration kLateLook = seconds(3);

}  // namespace

Silence::Silence(const std::vector<Slot>& slots, Instant now) : last_look_(now) {
  for (const Slot slot : slots) neighbours_[slot].heard = now;
}

void Silence::answered(Slot slot, Instant now) {
  const auto found = neighbours_.find(slot);
  if (found == neighbours_.end()) return;
  found->second.heard = now;
  found->second.back = found->second.reported;
}

std::vector<Silence::Report> Silence::look(Instant now) {
  const Duration elapsed = now - last_look_;
  last_look_ = now;
  std::vector<Report> reports;
  for (auto& [slot, neighbour] : neighbours_) {
    if (elapsed > kLateLook && !neighbour.reported) neighbour.heard = std::min(now, neighbour.heard + elapsed);
    const Duration silent = now - neighbour.heard;
    if (neighbour.back) {
      neighbour.reported = neighbour.back = false;
      reports.push_back({slot, Duration(0)});
    } else if (silent >= kLimit && (!neighbour.reported || now - neighbour.reported_at >= kAgain)) {
      neighbour.reported = true;
      neighbour.reported_at = now;
      reports.push_back({slot, silent});
    }
  }
  return reports;
}

}  // namespace pitcrew::launcher
