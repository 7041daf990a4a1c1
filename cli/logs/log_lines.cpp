#include "cli/logs/log_lines.hpp"

#include <algorithm>
#include <charconv>

#include "lib/base/time.hpp"

namespace pitcrew::cli {
namespace {

constexpr std::string_view kBegin = "==== pitcrew stacks begin: ";
constexpr std::string_view kEnd = "==== pitcrew stacks end ====";
constexpr std::string_view kRankMark = "[rank ";

// In UTC and with nanoseconds, so that times compare like their texts: a kubelet writes them in its node's own zone.
// Empty: it is no time.
std::string time_in(std::string_view word) {
  if (word.size() < 20 || word[4] != '-' || word[10] != 'T') return {};
  constexpr size_t kWhole = 30;  // 2026-03-01T02:14:07.123456789Z
  if (word.size() == kWhole && word[19] == '.' && word.back() == 'Z') return std::string(word);
  const auto time = parse_rfc3339(word);
  return time ? to_rfc3339(*time, 9) : std::string();
}

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    lines.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

}  // namespace

LogLine read_log_line(std::string_view line, const std::string& pod, const std::string& time_before) {
  LogLine read{time_before, pod, std::nullopt, ""};
  const size_t space = line.find(' ');
  if (std::string time = time_in(line.substr(0, space)); !time.empty()) {
    read.time = std::move(time);
    line.remove_prefix(space == std::string_view::npos ? line.size() : space + 1);
  }
  if (line.starts_with(kRankMark)) {
    const size_t close = line.find(']');
    uint32_t rank = 0;
    const char* from = line.data() + kRankMark.size();
    const auto [end, error] = std::from_chars(from, line.data() + std::min(close, line.size()), rank);
    if (close != std::string_view::npos && error == std::errc() && end == line.data() + close) {
      read.rank = rank;
      line.remove_prefix(close + 1);
      if (line.starts_with("+")) line.remove_prefix(1);
      if (line.starts_with(" ")) line.remove_prefix(1);
    }
  }
  read.text = line;
  return read;
}

bool said_by_launcher(std::string_view line) {
  return line.starts_with('{') && line.find("\"program\":\"pitcrew-launcher\"") != std::string_view::npos;
}

void LogMerger::add(const std::string& pod, std::string_view text) {
  Seen& seen = seen_[pod];
  const Seen before = seen;
  std::map<std::string, size_t> repeats;
  std::string time = before.time;
  for (const std::string_view raw : lines_of(text)) {
    LogLine line = read_log_line(raw, pod, time);
    time = line.time;
    if (!before.time.empty() && line.time < before.time) continue;  // the API's "since" knows whole seconds only
    const std::string key(raw);
    if (line.time == before.time) {
      const auto known = before.at_time.find(key);
      if (known != before.at_time.end() && ++repeats[key] <= known->second) continue;
    }
    if (line.time != seen.time) seen = {line.time, {}};
    ++seen.at_time[key];
    waiting_.push_back(std::move(line));
  }
}

std::vector<LogLine> LogMerger::take(const std::string& until) {
  std::stable_sort(waiting_.begin(), waiting_.end(),
                   [](const LogLine& a, const LogLine& b) { return a.time < b.time; });
  auto end = waiting_.end();
  if (!until.empty()) {
    end = std::find_if(waiting_.begin(), waiting_.end(), [&](const LogLine& line) { return line.time >= until; });
  }
  std::vector<LogLine> taken(std::make_move_iterator(waiting_.begin()), std::make_move_iterator(end));
  waiting_.erase(waiting_.begin(), end);
  return taken;
}

std::string LogMerger::since(const std::string& pod) const {
  const auto found = seen_.find(pod);
  return found == seen_.end() ? "" : found->second.time;
}

std::vector<std::string> stacks_in(std::string_view log, std::string_view why) {
  std::vector<std::string> blocks;
  bool inside = false;
  for (const std::string_view line : lines_of(log)) {
    if (const size_t begin = line.find(kBegin); begin != std::string_view::npos) {
      inside = line.find(why, begin) != std::string_view::npos;
      if (inside) blocks.emplace_back();
      continue;
    }
    if (line.find(kEnd) != std::string_view::npos) {
      inside = false;
    } else if (inside) {
      blocks.back() += std::string(line) + "\n";
    }
  }
  return blocks;
}

std::vector<std::string> without_stacks(const std::vector<std::string>& lines) {
  std::vector<std::string> rest;
  bool inside = false;
  bool begun = false;
  for (const std::string& line : lines) {
    if (line.find(kBegin) != std::string::npos) {
      inside = begun = true;
    } else if (line.find(kEnd) != std::string::npos) {
      if (!begun) rest.clear();
      inside = false;
      begun = true;
    } else if (!inside) {
      rest.push_back(line);
    }
  }
  return rest;
}

}  // namespace pitcrew::cli
