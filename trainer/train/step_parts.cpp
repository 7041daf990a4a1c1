#include "trainer/train/step_parts.hpp"

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "trainer/checkpoint/name.hpp"

namespace pitcrew::trainer {
namespace {

constexpr char kFolder[] = "steps/";
constexpr uint64_t kLimit = uint64_t{1} << 30;

using PartName = StepParts::Name;

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
  std::vector<Written> parts, left;
  for (const auto& entry : entries) {
    if (const auto part = parse_part_name(entry.name)) parts.push_back({*part, entry.bytes});
  }
  uint64_t expected = 1;
  for (auto& [part, bytes] : parts) {
    // A writer of an older epoch that lived on may have put a part beside a newer one; and one that was merged may not
    // have been removed.
    const bool replaced = std::any_of(parts.begin(), parts.end(), [&](const Written& written) {
      const PartName& other = written.name;
      const bool newer = other.epoch > part.epoch && other.first <= part.last && part.first <= other.last;
      const bool around = other.epoch == part.epoch && other.first <= part.first && part.last <= other.last &&
                          other.last - other.first > part.last - part.first;
      return newer || around;
    });
    PartName kept = part;
    kept.last = std::min(part.last, resumed.value);
    if (replaced || part.first > resumed.value) {
      PITCREW_TRY(storage->remove(to_string(part)));
      continue;
    }
    if (part.last > resumed.value) {
      PITCREW_ASSIGN(const std::string lines, storage->read(to_string(part), kLimit));
      const std::string shorter = cut(lines, resumed);
      PITCREW_TRY(storage->replace(to_string(kept), shorter));
      PITCREW_TRY(storage->remove(to_string(part)));
      bytes = shorter.size();
    }
    left.push_back({kept, bytes});
    if (kept.first > expected && gap.empty())
      gap = "after step " + std::to_string(expected - 1) + " comes step " + std::to_string(kept.first);
    expected = std::max(expected, kept.last + 1);
  }
  if (gap.empty() && expected <= resumed.value)
    gap = "steps " + std::to_string(expected) + " to " + std::to_string(resumed.value) + " are missing";
  std::unique_ptr<StepParts> opened(new StepParts(std::move(storage), epoch));
  opened->written_ = std::move(left);
  opened->writer_ = std::jthread([log = opened.get()](std::stop_token stop) { log->write(std::move(stop)); });
  return opened;
}

StepParts::StepParts(std::unique_ptr<Storage> storage, EpochNumber epoch)
    : storage_(std::move(storage)), epoch_(epoch) {}

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
  queue_.push_back({{first_->value, last_.value, epoch_.value}, std::exchange(lines_, {})});
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
    const Status written = storage_->replace(to_string(part.name), part.lines);
    lock.lock();
    if (written) {
      queue_.pop_front();
    } else {
      failed_ = written.error();
    }
    changed_.notify_all();
    if (!written) continue;
    // Nobody waits for what follows.
    lock.unlock();
    written_.push_back({part.name, part.lines.size()});
    merge();
    lock.lock();
  }
}

// The last parts, where enough small ones stand in a row. What fails is tried again after a later part: the log is
// whole in any case.
void StepParts::merge() {
  size_t count = 0;
  while (count < written_.size() && written_[written_.size() - 1 - count].bytes < kSmall) ++count;
  if (count < kMerge) return;
  const size_t first = written_.size() - count;
  PartName whole{written_[first].name.first, 0, 0};
  std::string lines;
  for (size_t i = first; i < written_.size(); ++i) {
    const auto read = storage_->read(to_string(written_[i].name), kLimit);
    if (!read) return;
    lines += *read;
    whole.last = std::max(whole.last, written_[i].name.last);
    whole.epoch = std::max(whole.epoch, written_[i].name.epoch);
  }
  if (!storage_->replace(to_string(whole), lines)) return;
  for (size_t i = first; i < written_.size(); ++i) {
    if (!storage_->remove(to_string(written_[i].name))) continue;  // what is left lies within the whole
  }
  written_.resize(first);
  written_.push_back({whole, lines.size()});
}

}  // namespace pitcrew::trainer
