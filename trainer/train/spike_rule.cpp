#include "trainer/train/spike_rule.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace pitcrew::trainer {
namespace {

constexpr double kEverything = std::numeric_limits<double>::infinity();

double limit(const std::deque<double>& recent, double factor) {
  if (factor <= 0 || recent.size() < SpikeRule::kFewest) return kEverything;
  std::vector<double> sorted(recent.begin(), recent.end());
  std::nth_element(sorted.begin(), sorted.begin() + static_cast<ptrdiff_t>(sorted.size() / 2), sorted.end());
  return factor * sorted[sorted.size() / 2];
}

Status read(const Json& state, const char* name, std::deque<double>& into) {
  const auto found = state.find(name);
  if (found == state.end() || !found->is_array() || found->size() > SpikeRule::kWindow) {
    return Error(Code::kInvalidArgument, std::string("the checkpoint's state has no list '") + name + "'");
  }
  std::deque<double> values;
  for (const Json& value : *found) {
    if (!value.is_number()) return Error(Code::kInvalidArgument, std::string("not a number in '") + name + "'");
    values.push_back(value.get<double>());
  }
  into = std::move(values);
  return {};
}

}  // namespace

SpikeRule::SpikeRule(SpikeSettings settings, uint64_t vocabulary)
    : settings_(settings), guessing_(std::log(static_cast<double>(std::max<uint64_t>(vocabulary, 2)))) {}

double SpikeRule::loss_limit() const { return std::max(limit(losses_, settings_.loss), guessing_); }

// A norm of nothing but zeros says nothing about the next.
double SpikeRule::norm_limit() const {
  const double value = limit(norms_, settings_.norm);
  return value > 0 ? value : kEverything;
}

void SpikeRule::add(double loss, double norm) {
  losses_.push_back(loss);
  norms_.push_back(norm);
  if (losses_.size() > kWindow) losses_.pop_front();
  if (norms_.size() > kWindow) norms_.pop_front();
}

Json SpikeRule::state() const { return {{"losses", losses_}, {"norms", norms_}}; }

Status SpikeRule::restore(const Json& state) {
  losses_.clear();
  norms_.clear();
  if (!state.is_object()) return Error(Code::kInvalidArgument, "the checkpoint's state has no recent losses");
  PITCREW_TRY(read(state, "losses", losses_));
  return read(state, "norms", norms_);
}

}  // namespace pitcrew::trainer
