#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "trainer/checkpoint/manifest.hpp"
#include "trainer/checkpoint/slices.hpp"

namespace pitcrew::trainer {

// Where the slices of one rank lie in its shard: the same for every save, so that a buffer is the file. Immutable.
class SnapshotLayout {
 public:
  struct Place {
    StateSlice slice;
    uint64_t offset = 0;  // in the shard
    uint64_t bytes = 0;
  };

  // Of the `holders.count` ranks that hold the same elements this is number `holders.index`. What all tensor ranks hold
  // the first of them saves.
  SnapshotLayout(const std::vector<StateTensor>& tensors, uint32_t rank, uint32_t ranks, Holders holders);

  const std::string& file() const { return file_; }
  uint64_t bytes() const { return bytes_; }  // of the shard
  uint64_t header_bytes() const { return header_bytes_; }
  const std::vector<Place>& places() const { return places_; }  // in the order of the tensors

  // The header of the shard of this checkpoint; always of header_bytes().
  std::string header(CheckpointName name) const;
  // The digests of a shard that is complete in memory.
  ShardReport measure(const std::byte* shard) const;
  // The same where the digests of all places' chunks are known already, place after place.
  ShardReport report(const std::byte* shard, const uint64_t* digests) const;
  uint64_t chunks() const;  // of all places

 private:
  std::string encode(const std::string& step, const std::string& claim) const;

  std::string file_;
  uint64_t bytes_ = 0;
  uint64_t header_bytes_ = 0;
  std::vector<Place> places_;
  std::vector<std::string> names_;
  std::vector<std::string> dtypes_;
  std::vector<std::vector<uint64_t>> shapes_;
  std::vector<TensorCut> cuts_;
  std::vector<size_t> numbers_;  // among manifest_tensors()
};

}  // namespace pitcrew::trainer
