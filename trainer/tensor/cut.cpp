#include "trainer/tensor/cut.hpp"

#include <algorithm>
#include <numeric>

namespace pitcrew::trainer {

namespace {

// A tensor seen as [outer][axis][inner].
struct View {
  uint64_t outer = 1, extent = 1, inner = 1;
};

View view_of(const std::vector<uint64_t>& shape, uint32_t axis) {
  View view;
  for (size_t i = 0; i < shape.size(); ++i) (i < axis ? view.outer : i == axis ? view.extent : view.inner) *= shape[i];
  return view;
}

// A rank's share of one group: indices [begin, begin + count) of the axis.
struct Share {
  uint64_t begin = 0;
  uint64_t count = 0;
};

std::vector<Share> shares_of(const View& view, const TensorCut& cut) {
  if (cut.whole()) return {{0, view.extent}};
  std::vector<Share> shares;
  uint64_t begin = 0;
  for (const uint64_t extent : cut.groups) {
    const uint64_t each = (extent + cut.count - 1) / cut.count;
    const uint64_t first = std::min(extent, each * cut.index);
    shares.push_back({begin + first, std::min(extent, first + each) - first});
    begin += extent;
  }
  return shares;
}

uint64_t held_extent(const std::vector<Share>& shares) {
  return std::accumulate(shares.begin(), shares.end(), uint64_t{0},
                         [](uint64_t sum, const Share& share) { return sum + share.count; });
}

}  // namespace

std::vector<uint64_t> held_shape(const std::vector<uint64_t>& shape, const TensorCut& cut) {
  std::vector<uint64_t> held = shape;
  if (!cut.whole()) held[cut.axis] = held_extent(shares_of(view_of(shape, cut.axis), cut));
  return held;
}

uint64_t held_elements(const std::vector<uint64_t>& shape, const TensorCut& cut) {
  uint64_t product = 1;
  for (const uint64_t extent : held_shape(shape, cut)) product *= extent;
  return product;
}

void for_each_run(const std::vector<uint64_t>& shape, const TensorCut& cut, uint64_t first, uint64_t count,
                  const std::function<void(const CutRun&)>& visit) {
  if (count == 0) return;
  if (cut.whole()) return visit({first, first, count});
  const View view = view_of(shape, cut.axis);
  const std::vector<Share> shares = shares_of(view, cut);
  const uint64_t stretch = held_extent(shares) * view.inner, end = first + count;
  for (uint64_t outer = first / stretch; outer * stretch < end; ++outer) {
    uint64_t held = outer * stretch;
    for (const Share& share : shares) {
      const uint64_t begin = std::max(held, first), last = std::min(held + share.count * view.inner, end);
      if (begin < last) visit({begin, (outer * view.extent + share.begin) * view.inner + (begin - held), last - begin});
      held += share.count * view.inner;
    }
  }
}

void for_each_common_run(const std::vector<uint64_t>& shape, const TensorCut& from, uint64_t first, uint64_t count,
                         const TensorCut& to,
                         const std::function<void(uint64_t from, uint64_t to, uint64_t count)>& visit) {
  if (from == to || (from.whole() && to.whole())) {
    if (count > 0) visit(first, first, count);
    return;
  }
  const View view = view_of(shape, to.axis);
  const std::vector<Share> shares = shares_of(view, to);
  const uint64_t stretch = held_extent(shares) * view.inner, row = view.extent * view.inner;
  for_each_run(shape, from, first, count, [&](const CutRun& run) {
    const uint64_t end = run.whole + run.count;
    for (uint64_t outer = run.whole / row; outer * row < end; ++outer) {
      uint64_t held = outer * stretch;
      for (const Share& share : shares) {
        const uint64_t start = outer * row + share.begin * view.inner;
        const uint64_t begin = std::max(start, run.whole), last = std::min(start + share.count * view.inner, end);
        if (begin < last) visit(run.held + (begin - run.whole), held + (begin - start), last - begin);
        held += share.count * view.inner;
      }
    }
  });
}

}  // namespace pitcrew::trainer
