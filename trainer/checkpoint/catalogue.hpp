#pragma once

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "lib/base/log.hpp"
#include "trainer/checkpoint/manifest.hpp"
#include "trainer/checkpoint/storage.hpp"

namespace pitcrew::trainer {

// What a checkpoint folder holds, and what may go. Free functions over a Storage; used by rank 0 and by people's
// commands.

struct FoundCheckpoint {
  CheckpointName name;
  std::string folder;
  bool committed = false;            // has a manifest: else it is being written, or what a crash left
  std::optional<Manifest> manifest;  // where it can be read
  std::string problem;               // empty: manifest right, all files there with their sizes, nobody found damage
};

// Newest first.
Result<std::vector<FoundCheckpoint>> find_checkpoints(Storage& storage);
// One of them, looked at in the same way.
FoundCheckpoint look_at(Storage& storage, const std::string& folder, CheckpointName name);

// Removes the oldest intact checkpoints beyond `keep`. Damaged ones are neither counted nor removed.
Status remove_beyond(Storage& storage, uint32_t keep, const Logger& log);
// Removes what writers of claims older than `claim` left without a manifest.
Status remove_unfinished(Storage& storage, uint64_t claim, const Logger& log);
// Leaves a note that damage was found, so that the checkpoint isn't counted any more.
Status mark_damaged(Storage& storage, const std::string& folder, const std::string& problem);

// Reads `bytes` of a file and compares its chunks' digests; the error names file, tensor and byte.
Status read_checked(const File& file, const Manifest& manifest, const Manifest::Tensor& tensor,
                    const Manifest::Part& part, uint64_t first_chunk, std::span<std::byte> data);
Status check_header(const File& file, const Manifest::File& entry);

}  // namespace pitcrew::trainer
