#pragma once

#include <compare>
#include <optional>
#include <string>
#include <string_view>

#include "lib/base/strong.hpp"

namespace pitcrew::trainer {

// The name of a checkpoint's folder: step-000000000500-c7 is step 500, written under claim 7. A checkpoint of a newer
// claim is newer, whatever its step: the claim's owner had decided where to go on from.
struct CheckpointName {
  uint64_t claim = 0;
  Step step;
  auto operator<=>(const CheckpointName&) const = default;
};

std::string to_string(CheckpointName name);
std::optional<CheckpointName> parse_checkpoint_name(std::string_view text);

// shard-00003-of-00008.safetensors
std::string shard_file_name(uint32_t shard, uint32_t shards);

inline constexpr char kManifestFile[] = "manifest.json";
inline constexpr char kDamagedFile[] =
    "damaged.json";  // says what a reader found wrong; the checkpoint is no longer counted

// A decimal number without sign or spaces, of at most 20 digits; nothing else.
std::optional<uint64_t> parse_number(std::string_view text);

}  // namespace pitcrew::trainer
