#include "trainer/parallel/lane_sums.hpp"

#include <algorithm>

namespace pitcrew::trainer {

LaneSums::LaneSums(LaneRange range, uint32_t lanes, uint32_t shards) {
  for (uint32_t end = range.first; end < range.end;) {
    end = std::min(range.end, end + shards);
    slots_ = std::max(slots_, static_cast<uint32_t>(subtrees({range.first, end}, lanes).size()));
  }
  std::vector<uint32_t> free;
  for (uint32_t slot = slots_; slot-- > 0;) free.push_back(slot);
  TreeFold fold(lanes);
  for (uint32_t first = range.first; first < range.end; first += shards) {
    const uint32_t count = std::min(shards, range.end - first);
    std::vector<Step> steps;
    for (uint32_t shard = 0; shard < count; ++shard) {
      fold.push({0, first + shard}, slots_ + shard, [&](uint32_t into, uint32_t from) {
        steps.push_back({true, into, from});
        if (from < slots_) free.push_back(from);
      });
    }
    for (size_t part = 0; part < fold.parts().size(); ++part) {
      const uint32_t value = fold.parts()[part].value;
      if (value < slots_) continue;
      steps.push_back({false, free.back(), value});
      fold.rename(part, free.back());
      free.pop_back();
    }
    steps_.push_back(std::move(steps));
    brought_.push_back(count);
  }
  for (const TreeFold::Part& part : fold.parts()) left_.push_back(part.value);
}

}  // namespace pitcrew::trainer
