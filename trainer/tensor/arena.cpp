#include "trainer/tensor/arena.hpp"

namespace pitcrew::trainer {

namespace {

constexpr uint64_t kAlignment = 64;

}  // namespace

size_t ArenaLayout::add(std::string name, DType dtype, std::vector<uint64_t> shape) {
  Slice slice{.name = std::move(name), .dtype = dtype, .shape = std::move(shape), .offset = bytes_, .elements = 1};
  for (const uint64_t extent : slice.shape) slice.elements *= extent;
  const size_t index = slices_.size();
  PITCREW_INVARIANT(by_name_.emplace(slice.name, index).second, "two slices of an arena are named " + slice.name);
  bytes_ += (slice.bytes() + kAlignment - 1) / kAlignment * kAlignment;
  slices_.push_back(std::move(slice));
  return index;
}

const Slice* ArenaLayout::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &slices_[found->second];
}

Result<Arena> Arena::create(Device& device, std::string_view name, ArenaLayout layout) {
  Arena arena;
  PITCREW_ASSIGN(arena.buffer_, device.allocate(name, layout.bytes()));
  arena.layout_ = std::move(layout);
  return arena;
}

}  // namespace pitcrew::trainer
