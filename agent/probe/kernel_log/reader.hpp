#pragma once

#include <memory>
#include <string>
#include <vector>

#include "agent/probe/kernel_log/source.hpp"
#include "agent/probe/observation.hpp"

namespace pitcrew::agent::kernel_log {

// How far a reader has come: the time of the last record seen, and which records of that very time. Several lines can
// carry the same microsecond, so the time alone would lose some of them or repeat them.
struct Position {
  std::string boot_id;
  Duration last{0};
  std::vector<uint64_t> seen;  // hashes of the texts of the records at `last`, with how often each
  bool operator==(const Position&) const = default;
};
std::string to_string(const Position& position);
Result<Position> parse_position(std::string_view text);

// Reads the kernel log from the last seen record on and gives what parse() finds. After a restart of the agent it goes
// on from the position it had; after a reboot it begins at the start. Ids are the boot, the time and the text, so that
// judgement leaves out what it has judged even where the position was lost.
//
// Owned by the agent, one thread; nothing to end.
class Reader {
 public:
  struct Settings {
    std::string boot_id;    // /proc/sys/kernel/random/boot_id
    Instant booted;         // since_boot counts from here
    Duration look_back{0};  // without a position: how much of the past is read; 0: all that the log holds
  };

  Reader(std::unique_ptr<Source> source, Settings settings, Position position);

  // What is new. An error is the source's: the position stays.
  Result<std::vector<Observation>> poll(Instant now);
  const Position& position() const { return position_; }
  uint64_t lines() const { return lines_; }  // looked at so far

 private:
  std::unique_ptr<Source> source_;
  Settings settings_;
  Position position_;
  bool first_ = true;
  uint64_t lines_ = 0;
};

}  // namespace pitcrew::agent::kernel_log
