#include "agent/probe/lustre/parse.hpp"

#include <algorithm>

#include "agent/probe/host.hpp"

namespace pitcrew::agent::lustre {
namespace {

constexpr size_t kMaxCounters = 256;

// "  avg_waittime: 1203 usec" → {"avg_waittime", "1203 usec"}.
std::optional<std::pair<std::string_view, std::string_view>> field(std::string_view line) {
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos) return std::nullopt;
  const auto words = split_words(line.substr(0, colon), 2);
  if (words.size() != 1) return std::nullopt;
  std::string_view value = line.substr(colon + 1);
  value.remove_prefix(std::min(value.find_first_not_of(" \t"), value.size()));
  while (!value.empty() && (value.back() == ' ' || value.back() == '\t')) value.remove_suffix(1);
  return std::pair(words[0], value);
}

std::optional<double> first_number(std::string_view value) {
  const auto words = split_words(value, 1);
  return words.empty() ? std::nullopt : parse_number(words[0]);
}

bool is_hex(std::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

}  // namespace

std::map<std::string, Counter, std::less<>> parse_stats(std::string_view text) {
  std::map<std::string, Counter, std::less<>> counters;
  for (const std::string_view line : split_lines(text)) {
    const auto words = split_words(line, 8);
    if (words.size() < 4 || words[2] != "samples" || words[0].size() > 64) continue;
    const std::string_view unit = words[3];
    if (unit.size() < 3 || unit.size() > 18 || unit.front() != '[' || unit.back() != ']') continue;
    const auto samples = parse_number(words[1]);
    if (!samples) continue;
    Counter counter{printable(unit.substr(1, unit.size() - 2), 16), *samples, 0};
    if (words.size() > 6) counter.sum = parse_number(words[6]).value_or(0);
    counters.insert_or_assign(printable(words[0], 64), std::move(counter));
    if (counters.size() == kMaxCounters) break;
  }
  return counters;
}

std::optional<Import> parse_import(std::string_view text) {
  Import import;
  std::string_view part;  // the list or block that lines belong to
  for (const std::string_view line : split_lines(text)) {
    const auto found = field(line);
    if (!found) continue;
    const auto& [name, value] = *found;
    if (value.empty()) {
      part = name;
      continue;
    }
    if (name == "target") {
      std::string_view target = value;
      if (target.ends_with("_UUID")) target.remove_suffix(5);
      import.target = printable(target, 64);
    }
    if (name == "state") import.state = printable(value, 24);
    if (name == "inflight") import.inflight = first_number(value);
    if (name == "timeouts") import.timeouts = first_number(value);
    if (name == "avg_waittime") import.wait_microseconds = first_number(value);
    if (name == "connection_attempts") import.attempts = first_number(value);
    if (name == "usec_per_rpc" && part == "read_data_averages") import.read_microseconds = first_number(value);
    if (name == "usec_per_rpc" && part == "write_data_averages") import.write_microseconds = first_number(value);
  }
  if (import.state.empty()) return std::nullopt;
  return import;
}

std::vector<Transition> parse_state_history(std::string_view text) {
  std::vector<Transition> history;
  for (const std::string_view line : split_lines(text, 256)) {
    // " - [ 1700000000, EVICTED ]"
    const size_t open = line.find('['), comma = line.find(','), close = line.find(']');
    if (open == std::string_view::npos || comma == std::string_view::npos || close == std::string_view::npos) continue;
    if (!(open < comma && comma < close)) continue;
    const auto time = parse_number(line.substr(open + 1, comma - open - 1));
    const auto state = split_words(line.substr(comma + 1, close - comma - 1), 1);
    if (!time || state.empty()) continue;
    history.push_back({*time, printable(state[0], 24)});
  }
  return history;
}

std::string without_instance(std::string_view name) {
  const size_t dash = name.rfind('-');
  if (dash != std::string_view::npos && name.size() - dash > 8 && is_hex(name.substr(dash + 1))) {
    name = name.substr(0, dash);
    for (const std::string_view kind : {"-osc", "-mdc"}) {
      if (name.ends_with(kind)) name.remove_suffix(kind.size());
    }
  }
  return printable(name, 64);
}

}  // namespace pitcrew::agent::lustre
