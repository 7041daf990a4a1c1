#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pitcrew::agent::lustre {

// One line of a `stats` file: `read_bytes  500 samples [bytes] 4096 1048576 209715200 …`.
struct Counter {
  std::string unit;  // bytes, usecs, reqs
  double samples = 0;
  double sum = 0;  // 0 where the line has none
};
// By name; at most 256 lines. What is no counter (snapshot_time) is left out.
std::map<std::string, Counter, std::less<>> parse_stats(std::string_view text);

// An `import` file: a client's connection to one target.
struct Import {
  std::string target;                                           // fsx-OST0000
  std::string state;                                            // FULL, IDLE, DISCONN, EVICTED, …
  std::optional<double> inflight, timeouts, wait_microseconds;  // of its RPCs
  std::optional<double> attempts;                               // to connect
  std::optional<double> read_microseconds, write_microseconds;  // of an RPC, on average
};
std::optional<Import> parse_import(std::string_view text);

// A `state` file: the last transitions with their times, oldest first.
struct Transition {
  double time = 0;  // seconds since the epoch, by the client's clock
  std::string state;
  bool operator==(const Transition&) const = default;
};
std::vector<Transition> parse_state_history(std::string_view text);

// "fsx-OST0000-osc-ffff8f2a1c3b5800" → "fsx-OST0000"; "fsx-ffff8f2a1c3b5800" → "fsx".
std::string without_instance(std::string_view name);

}  // namespace pitcrew::agent::lustre
