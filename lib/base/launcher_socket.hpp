#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "lib/base/json.hpp"
#include "lib/base/strong.hpp"

namespace pitcrew {

// What a rank and its launcher say to one another over the Unix socket PITCREW_LAUNCHER: one JSON object a line, each
// request with an id that its answer repeats; requests may overlap. At most 64 KiB a line. docs/training-programs.md
// describes it for other languages.
//
// The launcher serves PITCREW_MEMORY to the job's other launchers; it never reads what the files mean. Its layout:
//
//   own/<checkpoint>/…          written by this pod's ranks; <checkpoint> is step-<step>-c<claim>
//   peer/<slot>/<checkpoint>/…  copies of the files that the replica of <slot> pushed, written by the launcher
//   counted/<checkpoint>        empty; made when a rank says `counted`: every slice and every copy of it is complete
//   fetch/…                     where fetched bytes are put, named by the rank that asks
namespace launcher_socket {

inline constexpr size_t kMaxLine = 64 * 1024;

// Copy these files of own/<checkpoint>/ to the peers that keep this replica's copies. Answered when every peer has them
// all, or with the error of the first that can't. Files of one checkpoint may be pushed by several requests (one per
// local rank).
struct Push {
  std::string checkpoint;
  std::vector<std::string> files;  // names inside own/<checkpoint>/
};

// What every launcher of the epoch holds now. Answered with `held`; a launcher that can't be reached is left out.
struct List {};

// Bytes of a peer's file into PITCREW_MEMORY/<into>, the ranges one after another. Answered when they are all there.
struct Fetch {
  Slot slot;         // whose launcher is asked
  std::string path;  // below its PITCREW_MEMORY: own/… or peer/…
  struct Range {
    uint64_t offset = 0;
    uint64_t length = 0;
  };
  std::vector<Range> ranges;
  std::string into;  // below fetch/
};

// This memory checkpoint counts: every slice of every replica and every copy is complete. Older ones of own/ and peer/
// may be dropped by `drop`.
struct Counted {
  std::string checkpoint;
  Step step;
};

// Deletes a checkpoint from own/ and this replica's copies of it from the peers.
struct Drop {
  std::string checkpoint;
};

// A durable checkpoint is complete. From rank 0.
struct Saved {
  Step step;
  std::string path;
  uint64_t bytes = 0;
  uint64_t request = 0;  // the page's save_requested word that it serves; 0: by schedule
};

// Something that the operator should know when it judges: a lost peer, a NaN, a digest that differs.
struct Evidence {
  Rank rank;
  std::string kind;  // lost-peer, nonfinite, spike, replay, digest, storage
  std::string message;
  std::optional<Rank> peer;  // whom it is about
  // nonfinite, spike: a step that gave the same bits twice here, for which the rank now exits with 75, and what it
  // computed (see ReplayPoint). replay: the step of PITCREW_REPLAY is past; no digest: bits could not be compared.
  std::optional<Step> step;
  std::string digest;
};

using Request = std::variant<Push, List, Fetch, Counted, Drop, Saved, Evidence>;

// What one launcher holds.
struct Held {
  Slot slot;  // whose launcher this is
  bool self = false;
  std::vector<std::string> own;  // <checkpoint>/<file>
  struct Copy {
    Slot of;
    std::vector<std::string> files;  // <checkpoint>/<file>
  };
  std::vector<Copy> peer;
  std::vector<std::string> counted;  // checkpoints
};

struct Answer {
  uint64_t id = 0;
  std::optional<Error> error;
  std::vector<Held> held;    // List
  std::vector<Slot> copies;  // Push: who holds the copies now
};

std::string encode(uint64_t id, const Request& request);  // one line with its line feed
std::string encode(const Answer& answer);
Result<std::pair<uint64_t, Request>> decode_request(std::string_view line);
Result<Answer> decode_answer(std::string_view line);

}  // namespace launcher_socket
}  // namespace pitcrew
