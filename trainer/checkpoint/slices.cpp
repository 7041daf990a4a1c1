#include "trainer/checkpoint/slices.hpp"

#include <algorithm>

namespace pitcrew::trainer {

std::vector<std::vector<StateSlice>> deal_slices(const std::vector<StateTensor>& tensors, uint32_t parts) {
  uint64_t left = 0;
  for (const StateTensor& tensor : tensors) left += tensor.bytes();
  std::vector<std::vector<StateSlice>> dealt(parts);
  uint32_t part = 0;
  uint64_t filled = 0;
  uint64_t wanted = (left + parts - 1) / parts;
  for (size_t t = 0; t < tensors.size(); ++t) {
    const uint64_t bytes = tensors[t].bytes();
    const uint64_t width = size_of(tensors[t].dtype);
    if (tensors[t].elements() == 0) dealt[part].push_back({t, 0, 0});
    for (uint64_t at = 0; at < bytes;) {
      // Half a chunk over or under is as even as it gets; the last part takes what is left.
      if (filled > 0 && part + 1 < parts && filled + std::min(kChunkBytes, bytes - at) / 2 > wanted) {
        left -= filled;
        ++part;
        wanted = (left + (parts - part) - 1) / (parts - part);
        filled = 0;
      }
      const uint64_t piece = std::min(kChunkBytes, bytes - at);
      std::vector<StateSlice>& mine = dealt[part];
      if (!mine.empty() && mine.back().tensor == t) {
        mine.back().count += piece / width;
      } else {
        mine.push_back({t, tensors[t].first + at / width, piece / width});
      }
      filled += piece;
      at += piece;
    }
  }
  return dealt;
}

}  // namespace pitcrew::trainer
