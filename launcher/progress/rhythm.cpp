#include "launcher/progress/rhythm.hpp"

#include <algorithm>
#include <cmath>

#include "lib/base/json.hpp"

namespace pitcrew::launcher {
namespace {

constexpr size_t kRing = 128;
constexpr size_t kJudgedKept = 16;
constexpr uint64_t kEnoughForQuiet = 32;
constexpr double kFactor = 5;
constexpr double kLongestFactor = 2;

bool has_own_limit(page::Phase phase) { return phase == page::Phase::kEvaluating || phase == page::Phase::kSaving; }

}  // namespace

void Rhythm::step_took(Duration mean, uint64_t steps) {
  const double value = to_seconds(mean);
  if (!(value > 0)) return;
  if (means_.size() < kRing) {
    means_.push_back(value);
  } else {
    means_[means_seen_ % kRing] = value;
  }
  ++means_seen_;
  steps_seen_ += steps;
}

void Rhythm::was_quiet(Duration time) { longest_quiet_ = std::max(longest_quiet_, to_seconds(time)); }

void Rhythm::phase_took(page::Phase phase, Duration time) {
  if (!has_own_limit(phase)) return;
  Longest& longest = longest_of(phase);
  ++longest.count;
  longest.longest = std::max(longest.longest, time);
}

void Rhythm::rate_was(double steps_per_second) { best_rate_ = std::max(best_rate_, steps_per_second); }

std::optional<Duration> Rhythm::step_limit(Duration floor) const {
  if (steps_seen_ < kEnough) return std::nullopt;
  std::vector<double> sorted = means_;
  std::sort(sorted.begin(), sorted.end());
  const double high = sorted[static_cast<size_t>(std::ceil(0.95 * static_cast<double>(sorted.size()))) - 1];
  return std::max(floor, from_seconds(std::max(kFactor * high, kLongestFactor * sorted.back())));
}

std::optional<Duration> Rhythm::quiet_limit(Duration floor) const {
  if (steps_seen_ < kEnoughForQuiet) return std::nullopt;
  return std::max(floor, from_seconds(kFactor * longest_quiet_));
}

std::optional<Duration> Rhythm::phase_limit(page::Phase phase) const {
  if (!has_own_limit(phase)) return std::nullopt;
  const Longest& longest = phase == page::Phase::kSaving ? saving_ : evaluating_;
  if (longest.count < 2) return std::nullopt;
  return std::max<Duration>(minutes(1), 4 * longest.longest);
}

void Rhythm::judged(const Judged& stall) {
  std::erase_if(judged_, [&](const Judged& old) { return old.step == stall.step && old.phase == stall.phase; });
  if (judged_.size() == kJudgedKept) judged_.erase(judged_.begin());
  judged_.push_back(stall);
}

const Rhythm::Judged* Rhythm::find_judged(Step step, page::Phase phase) const {
  for (const Judged& stall : judged_) {
    if (stall.step == step && stall.phase == phase) return &stall;
  }
  return nullptr;
}

std::string Rhythm::save() const {
  Json json{{"means", means_},
            {"seen", means_seen_},
            {"steps", steps_seen_},
            {"quiet", longest_quiet_},
            {"best", best_rate_},
            {"evaluating", {evaluating_.count, evaluating_.longest.count()}},
            {"saving", {saving_.count, saving_.longest.count()}},
            {"judged", Json::array()}};
  for (const Judged& stall : judged_) {
    json["judged"].push_back({stall.step.value, static_cast<int>(stall.phase), stall.limit.count()});
  }
  return json.dump();
}

Rhythm Rhythm::load(std::string_view text) {
  const auto json = parse_json(text);
  if (!json || !json->is_object()) return {};
  try {
    Rhythm rhythm;
    rhythm.means_ = json->at("means").get<std::vector<double>>();
    rhythm.means_seen_ = json->at("seen").get<uint64_t>();
    rhythm.steps_seen_ = json->at("steps").get<uint64_t>();
    rhythm.longest_quiet_ = json->at("quiet").get<double>();
    rhythm.best_rate_ = json->at("best").get<double>();
    const auto read = [&](const char* key, Longest& longest) {
      longest.count = json->at(key).at(0).get<uint64_t>();
      longest.longest = Duration(json->at(key).at(1).get<int64_t>());
    };
    read("evaluating", rhythm.evaluating_);
    read("saving", rhythm.saving_);
    for (const Json& stall : json->at("judged")) {
      rhythm.judged({Step(stall.at(0).get<uint64_t>()), static_cast<page::Phase>(stall.at(1).get<int>()),
                     Duration(stall.at(2).get<int64_t>())});
    }
    if (rhythm.means_.size() > kRing || rhythm.means_seen_ < rhythm.means_.size()) return {};
    return rhythm;
  } catch (const Json::exception&) {
    return {};
  }
}

}  // namespace pitcrew::launcher
