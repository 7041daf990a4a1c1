#pragma once

#include <string>
#include <vector>

#include "lib/base/json.hpp"
#include "trainer/checkpoint/name.hpp"
#include "trainer/checkpoint/slices.hpp"

namespace pitcrew::trainer {

// What a checkpoint is made of and from. manifest.json is written last: a folder without one is no checkpoint.
// docs/checkpoint-format.md describes the file for other programs.
struct Manifest {
  struct File {
    std::string name;
    uint64_t bytes = 0;
    uint64_t header_bytes = 0;   // safetensors header with its length field
    uint64_t header_digest = 0;  // of those bytes
  };
  // A run of a tensor's elements in one file; its chunks are counted from its first byte.
  struct Part {
    size_t file = 0;
    uint64_t offset = 0;  // in the file
    uint64_t first = 0;
    uint64_t count = 0;
    std::vector<uint64_t> chunks;  // digests
  };
  // A tensor, or where tensor ranks shared it one rank's cut of it: then there are as many of the name as cuts.
  struct Tensor {
    std::string name;
    DType dtype = DType::kF32;
    std::vector<uint64_t> shape;  // of the whole tensor
    uint64_t digest = 0;          // over its chunks' digests
    std::vector<Part> parts;      // in order, without holes; elements are counted in the cut
    TensorCut cut = {};
    uint64_t elements() const { return held_elements(shape, cut); }
  };

  CheckpointName name;
  std::string time;  // RFC 3339
  std::string job_uid;
  std::string job_name;
  EpochId epoch;
  uint32_t world_size = 0;
  std::string config_hash;
  std::string dataset;
  Json bits_depend_on;
  Json state;  // sample order, generator, schedule
  std::vector<File> files;
  std::vector<Tensor> tensors;

  uint64_t total_bytes() const;  // of all files
};

// The largest manifest that is read: 12 bytes a parameter of a model of 2^40 parameters need 200 MiB of chunk digests.
inline constexpr uint64_t kMaxManifest = uint64_t{256} << 20;

std::string encode(const Manifest& manifest);
// Checks the checksum, the shape of everything, and that every tensor's parts cover it exactly.
Result<Manifest> decode_manifest(std::string_view text);

// The digest of a tensor: XXH3-64 over its chunks' digests as little-endian words.
uint64_t digest_of_chunks(const std::vector<uint64_t>& chunks);

// The manifest's tensors without parts, the same on every rank: every cut of the first of `tensors`, then of the
// second.
std::vector<Manifest::Tensor> manifest_tensors(const std::vector<StateTensor>& tensors);

// What one rank adds to the manifest: its file, and its parts with the indices of the manifest's tensors they belong
// to.
struct ShardReport {
  Manifest::File file;
  std::vector<std::pair<size_t, Manifest::Part>> parts;
};
Json to_json(const ShardReport& report);
Result<ShardReport> parse_shard_report(const Json& json);

// Puts the ranks' reports together: files in the order of the ranks, parts in that of a tensor's elements.
void add_shards(Manifest& manifest, const std::vector<StateTensor>& tensors, const std::vector<ShardReport>& reports);

}  // namespace pitcrew::trainer
