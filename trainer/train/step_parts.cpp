#include "trainer/train/step_parts.hpp"

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "trainer/checkpoint/name.hpp"

namespace pitcrew::trainer {
namespace {

constexpr char kFolder[] = "steps/";
constexpr uint64_t kLimit = uint64_t{1} << 30;

struct PartName {
  uint64_t first = 0, last = 0, epoch = 0;
};

std::string to_string(const PartName& name) {
  char text[96];
  std::snprintf(text, sizeof text, "%s%012llu-%012llu-e%llu.jsonl", kFolder,
                static_cast<unsigned long long>(name.first), static_cast<unsigned long long>(name.last),
                static_cast<unsigned long long>(name.epoch));
  return text;
}

std::optional<PartName> parse_part_name(std::string_view text) {
  constexpr std::string_view kEnd = ".jsonl";
  if (!text.ends_with(kEnd)) return std::nullopt;
  text.remove_suffix(kEnd.size());
  const size_t dash = text.find('-'), mark = text.find("-e");
  if (dash == std::string_view::npos || mark == std::string_view::npos || mark <= dash) return std::nullopt;
  const auto first = parse_number(text.substr(0, dash)), last = parse_number(text.substr(dash + 1, mark - dash - 1));
  const auto epoch = parse_number(text.substr(mark + 2));
  if (!first || !last || !epoch || *first > *last) return std::nullopt;
  return PartName{*first, *last, *epoch};
}

// The lines of steps up to `resumed`.
std::string cut(std::string_view lines, Step resumed) {
  constexpr std::string_view kStart = "{\"step\":";
  std::string kept;
  while (!lines.empty()) {
    const std::string_view line = lines.substr(0, lines.find('\n') + 1);
    if (line.empty()) break;
    lines.remove_prefix(line.size());
    uint64_t step = 0;
    const std::string_view rest = line.substr(std::min(kStart.size(), line.size()));
    std::from_chars(rest.data(), rest.data() + rest.size(), step);
    if (step <= resumed.value) kept += line;
  }
  return kept;
}

}  // namespace

Result<std::unique_ptr<StepParts>> StepParts::open(std::unique_ptr<Storage> storage, Step resumed, EpochNumber epoch,
                                                   std::string& gap) {
  PITCREW_ASSIGN(const auto entries, storage->list("steps"));
  std::vector<PartName> parts;
  for (const auto& entry : entries) {
    if (const auto part = parse_part_name(entry.name)) parts.push_back(*part);
  }
  uint64_t expected = 1;
  for (const PartName& part : parts) {
    // A writer of an older epoch that lived on may have put a part beside a newer one.
    const bool replaced = std::any_of(parts.begin(), parts.end(), [&](const PartName& other) {
      return other.epoch > part.epoch && other.first <= part.last && part.first <= other.last;
    });
    PartName kept = part;
    kept.last = std::min(part.last, resumed.value);
    if (replaced || part.first > resumed.value) {
      PITCREW_TRY(storage->remove(to_string(part)));
      continue;
    }
    if (part.last > resumed.value) {
      PITCREW_ASSIGN(const std::string lines, storage->read(to_string(part), kLimit));
      PITCREW_TRY(storage->replace(to_string(kept), cut(lines, resumed)));
      PITCREW_TRY(storage->remove(to_string(part)));
    }
    if (kept.first > expected && gap.empty())
      gap = "after step " + std::to_string(expected - 1) + " comes step " + std::to_string(kept.first);
    expected = std::max(expected, kept.last + 1);
  }
  if (gap.empty() && expected <= resumed.value)
    gap = "steps " + std::to_string(expected) + " to " + std::to_string(resumed.value) + " are missing";
  return std::make_unique<StepParts>(std::move(storage), epoch);
}

StepParts::StepParts(std::unique_ptr<Storage> storage, EpochNumber epoch)
    : storage_(std::move(storage)), epoch_(epoch), writer_([this](std::stop_token stop) { write(std::move(stop)); }) {}

StepParts::~StepParts() {
  writer_.request_stop();
  storage_->abort();
}

void StepParts::append(Step step, const std::string& line) {
  if (!first_) first_ = step;
  last_ = step;
  lines_ += line;
}

void StepParts::close() {
  if (!first_) return;
  const std::lock_guard lock(mutex_);
  queue_.push_back({to_string(PartName{first_->value, last_.value, epoch_.value}), std::exchange(lines_, {})});
  first_.reset();
  changed_.notify_all();
}

Status StepParts::settle() {
  std::unique_lock lock(mutex_);
  failed_.reset();
  changed_.notify_all();
  changed_.wait(lock, [&] { return queue_.empty() || failed_; });
  return failed_ ? Status(failed_->with_context("write the step log")) : Status();
}

void StepParts::write(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  while (changed_.wait(lock, stop, [&] { return !queue_.empty() && !failed_; })) {
    const Part part = queue_.front();
    lock.unlock();
    const Status written = storage_->replace(part.name, part.lines);
    lock.lock();
    if (written) {
      queue_.pop_front();
    } else {
      failed_ = written.error();
    }
    changed_.notify_all();
  }
}

}  // namespace pitcrew::trainer
