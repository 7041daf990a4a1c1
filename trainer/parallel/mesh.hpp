#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/result.hpp"

namespace pitcrew::trainer {

// How ranks divide the work: replicas hold the same parameters, shards a part of each, tensor ranks a part of every
// layer's width.
struct Grid {
  uint32_t replicas = 1;
  uint32_t shards = 1;
  uint32_t tensor = 1;
  uint32_t ranks() const { return replicas * shards * tensor; }
  // Ranks that see different lanes.
  uint32_t data_ranks() const { return replicas * shards; }
  bool operator==(const Grid&) const = default;
};
// "8", "8x8" (replicas, shards) or "2x4x8" (and tensor).
Result<Grid> parse_grid(const std::string& text);
// "2 replicas x 4 shards x 1 tensor".
std::string to_string(const Grid& grid);

// `parallel` of a run's configuration: how any number of ranks becomes a grid.
struct GridSettings {
  uint32_t shards = 1;
  uint32_t tensor = 1;
  std::optional<uint32_t> replicas;  // auto: as many as there are ranks for

  // kInvalidArgument where `ranks` ranks can't be such a grid; says which numbers can.
  Result<Grid> grid(uint32_t ranks) const;
  bool operator==(const GridSettings&) const = default;
};

// Where a rank stands in the grid.
struct Coordinates {
  uint32_t replica = 0;
  uint32_t shard = 0;
  uint32_t tensor = 0;
  bool operator==(const Coordinates&) const = default;
};

enum class MeshAxis { kReplica, kShard, kTensor };

// The ranks of an epoch as a grid. Tensor is fastest, then shard, then replica: rank = (replica × shards + shard) ×
// tensor ranks + tensor. Ranks of a node are numbered in a row, so tensor ranks and shards share a node where it has
// shards × tensor devices, and replicas are across nodes.
class Mesh {
 public:
  Mesh(const Grid& grid, uint32_t rank) : grid_(grid), rank_(rank) {}

  const Grid& grid() const { return grid_; }
  uint32_t rank() const { return rank_; }
  Coordinates at() const { return at(rank_); }
  Coordinates at(uint32_t rank) const;
  uint32_t rank_of(Coordinates at) const;
  // The ranks that differ from this one in `axis` alone, this one among them, in the order of that axis: the rank's own
  // place in it is its coordinate.
  std::vector<uint32_t> group(MeshAxis axis) const;
  // Which of grid().data_ranks() this is: replica × shards + shard. Tensor ranks share it: they see the same lanes.
  uint32_t data_rank() const { return rank_ / grid_.tensor; }
  // Nothing is divided: all ranks hold everything.
  bool replicas_only() const { return grid_.shards == 1 && grid_.tensor == 1; }

 private:
  Grid grid_;
  uint32_t rank_;
};

}  // namespace pitcrew::trainer
