#include "trainer/parallel/mesh.hpp"

#include <charconv>

namespace pitcrew::trainer {

Result<Grid> parse_grid(const std::string& text) {
  Grid grid;
  uint32_t* const parts[] = {&grid.replicas, &grid.shards, &grid.tensor};
  const char *at = text.data(), *const end = text.data() + text.size();
  const Error wrong(Code::kInvalidArgument, "grid '" + text + "': must be replicas, replicas x shards, or replicas x " +
                                                "shards x tensor, for instance 8x8");
  for (uint32_t* part : parts) {
    const auto [next, error] = std::from_chars(at, end, *part);
    if (error != std::errc() || *part == 0 || *part > (1u << 16)) return wrong;
    at = next;
    if (at == end) return grid;
    if (*at++ != 'x') return wrong;
  }
  return wrong;
}

std::string to_string(const Grid& grid) {
  return std::to_string(grid.replicas) + (grid.replicas == 1 ? " replica x " : " replicas x ") +
         std::to_string(grid.shards) + (grid.shards == 1 ? " shard x " : " shards x ") + std::to_string(grid.tensor) +
         " tensor";
}

Result<Grid> GridSettings::grid(uint32_t ranks) const {
  const uint64_t part = uint64_t{shards} * tensor;
  if (part == 0 || ranks == 0 || replicas == 0u)
    return Error(Code::kInvalidArgument, "parallel: shards, tensor and replicas must be at least 1");
  const std::string product = "parallel.shards " + std::to_string(shards) + " x parallel.tensor " +
                              std::to_string(tensor) + " = " + std::to_string(part);
  const std::string world = std::to_string(ranks) + (ranks == 1 ? " rank" : " ranks");
  if (ranks % part != 0) {
    return Error(Code::kInvalidArgument,
                 product + " does not divide the " + world + "; start a multiple of " + std::to_string(part) +
                     " ranks, or choose shards and tensor whose product divides " + std::to_string(ranks));
  }
  const auto fitting = static_cast<uint32_t>(ranks / part);
  if (replicas && *replicas != fitting) {
    return Error(Code::kInvalidArgument, "parallel.replicas " + std::to_string(*replicas) + " with " + product +
                                             " takes " + std::to_string(*replicas * part) + " ranks, and there are " +
                                             world + "; set replicas to " + std::to_string(fitting) + " or auto");
  }
  return Grid{fitting, shards, tensor};
}

Coordinates Mesh::at(uint32_t rank) const {
  return {rank / (grid_.tensor * grid_.shards), rank / grid_.tensor % grid_.shards, rank % grid_.tensor};
}

uint32_t Mesh::rank_of(Coordinates at) const {
  return (at.replica * grid_.shards + at.shard) * grid_.tensor + at.tensor;
}

std::vector<uint32_t> Mesh::group(MeshAxis axis) const {
  Coordinates place = at();
  uint32_t* moving = nullptr;
  uint32_t count = 0;
  switch (axis) {
    case MeshAxis::kReplica:
      moving = &place.replica;
      count = grid_.replicas;
      break;
    case MeshAxis::kShard:
      moving = &place.shard;
      count = grid_.shards;
      break;
    case MeshAxis::kTensor:
      moving = &place.tensor;
      count = grid_.tensor;
      break;
  }
  std::vector<uint32_t> ranks;
  for (*moving = 0; *moving < count; ++*moving) ranks.push_back(rank_of(place));
  return ranks;
}

}  // namespace pitcrew::trainer
