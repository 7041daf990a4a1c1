#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pitcrew::cli {

// A line of a container's log, asked for with timestamps.
struct LogLine {
  std::string time;  // RFC 3339 in UTC with nanoseconds: compares like the time
  std::string pod;
  std::optional<uint32_t> rank;  // of "[rank 3] …"; unset: the launcher's own words, or stacks that it prints
  std::string text;              // without time and without the rank's mark
};

// "2026-03-01T02:14:07.123456789Z [rank 3] loss 2.31". A line without a time belongs to the one before it.
LogLine read_log_line(std::string_view line, const std::string& pod, const std::string& time_before);

// Whether a line, without its time, is one of the launcher's own log: they stand among those of its ranks.
bool said_by_launcher(std::string_view line);

// Puts what several pods say into the order of time, and gives each line once, however often it is read. Pure.
class LogMerger {
 public:
  // A pod's log, read from `since(pod)` on.
  void add(const std::string& pod, std::string_view text);
  // What is new, in order; lines of one pod keep theirs. With `until` set only lines before it: later ones wait, since
  // another pod may still bring an earlier one.
  std::vector<LogLine> take(const std::string& until = "");
  // The newest time seen of a pod, or "".
  std::string since(const std::string& pod) const;

 private:
  struct Seen {
    std::string time;
    std::map<std::string, size_t> at_time;  // lines with exactly that time, and how often
  };
  std::map<std::string, Seen> seen_;
  std::vector<LogLine> waiting_;
};

// The blocks between "==== pitcrew stacks begin: <why> ====" and "==== pitcrew stacks end ====" whose reason contains
// `why`; several of one pod in their order.
std::vector<std::string> stacks_in(std::string_view log, std::string_view why);

// The lines that are no part of such a block; also where the log was cut inside one.
std::vector<std::string> without_stacks(const std::vector<std::string>& lines);

}  // namespace pitcrew::cli
