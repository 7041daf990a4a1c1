#pragma once

#include <map>
#include <string>
#include <vector>

#include "lib/base/environment.hpp"
#include "trainer/checkpoint/manifest.hpp"

namespace pitcrew::trainer {

// Who reads which bytes of which copy of a checkpoint: pure functions of what the ranks hold, the same on every rank.

// One copy of a file and the rank that can read it.
struct FileCopy {
  uint32_t rank = 0;
  std::string path;     // below PITCREW_MEMORY, or below the checkpoint path
  bool remote = false;  // asked of the launcher of `slot`
  Slot slot;
  bool own = false;  // of own/, not of peer/
};

// A checkpoint in one place, as the vote tries it.
struct Candidate {
  CheckpointName name;
  Place place = Place::kDurable;
  bool peers_first = false;    // of two copies in memory, the peer's
  uint32_t manifest_rank = 0;  // who reads the manifest
  std::string manifest_path;
  std::map<std::string, std::vector<FileCopy>> files;  // of a memory checkpoint; a durable one is read by all ranks
  std::string describe() const;
};

// What one rank told the others it can read.
struct Holdings {
  Slot slot;
  std::map<std::string, std::vector<std::string>> memory;  // <checkpoint> → paths; of one rank of each replica
  std::vector<std::string> durable;                        // committed checkpoints; rank 0
  struct Remote {
    Slot slot;
    std::vector<std::string> paths;
  };
  std::vector<Remote> remote;  // launchers outside the epoch's ranks; rank 0
};
Json to_json(const Holdings& holdings);
Result<Holdings> parse_holdings(const Json& json);

// Every checkpoint that somebody holds, newest first; of one, own memory, then peers' memory, then the durable copy.
std::vector<Candidate> find_candidates(const std::vector<Holdings>& all);
// Whether each file of the manifest can be read by somebody; else which one can't.
std::string missing_file(const Candidate& candidate, const Manifest& manifest);

// A piece of one tensor's part, or a file's header, read by one rank.
struct ReadUnit {
  size_t file = 0;
  bool header = false;
  size_t tensor = 0;
  size_t part = 0;
  uint64_t first_chunk = 0;
  uint64_t bytes = 0;  // handed to the other ranks
  std::string path;
  bool remote = false;
  Slot slot;
};

// Each rank's units, in the order in which they are read: every chunk once, dealt out evenly among those who can read
// it. No unit is larger than `largest` bytes, which is a multiple of the chunk size.
std::vector<std::vector<ReadUnit>> plan_reads(const Candidate& candidate, const Manifest& manifest, uint32_t ranks,
                                              uint64_t largest);

// Whether all the bytes come from own/.
bool only_own(const Candidate& candidate, const Manifest& manifest);

}  // namespace pitcrew::trainer
