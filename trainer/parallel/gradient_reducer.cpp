#include "trainer/parallel/gradient_reducer.hpp"

#include <algorithm>

namespace pitcrew::trainer {

GradientReducer::GradientReducer(Comm& comm, const LanePlan& plan, size_t piece, std::unique_ptr<PieceMemory> memory)
    : comm_(comm),
      lanes_(plan.lanes()),
      piece_(piece),
      memory_(memory ? std::move(memory) : std::make_unique<HostPieces>()) {
  for (uint32_t replica = 0; replica < plan.replicas(); ++replica) {
    nodes_.push_back(subtrees(plan.range(replica), plan.lanes()));
    subtrees_ += nodes_.back().size();
  }
}

Status GradientReducer::reduce(std::span<const float* const> mine, std::span<float> out) {
  PITCREW_INVARIANT(mine.size() == nodes_[comm_.rank()].size(), "a sum for each subtree of this rank");
  if (comm_.size() == 1) {
    // All lanes were here: what is left is the root.
    if (mine[0] == out.data()) return {};
    memory_->copy(out.data(), mine[0], out.size());
    memory_->finish();
    return {};
  }
  if (add_all_) return reduce_by_others(mine, out);
  PITCREW_TRY(memory_->reserve(subtrees_, std::min(piece_, out.size() / comm_.size() + 1)));
  const size_t stretch = piece_ * comm_.size();
  for (size_t first = 0; first < out.size(); first += stretch) {
    const size_t count = std::min(stretch, out.size() - first);
    PITCREW_TRY(scatter(mine, first, count));
    const Piece own = piece_of(comm_.rank(), first, count);
    fold(own);
    memory_->copy(out.data() + own.first, memory_->piece(0), own.count);
    memory_->finish();
    PITCREW_TRY(gather(out, first, count));
  }
  return {};
}

Status GradientReducer::reduce_by_others(std::span<const float* const> mine, std::span<float> out) {
  if (mine.empty()) memory_->zero(out.data(), out.size());
  for (size_t i = 0; i < mine.size(); ++i) {
    if (i > 0) memory_->add(out.data(), mine[i], out.size());
    if (i == 0 && mine[0] != out.data()) memory_->copy(out.data(), mine[0], out.size());
  }
  memory_->finish();
  return add_all_(out);
}

GradientReducer::Piece GradientReducer::piece_of(uint32_t rank, size_t first, size_t count) const {
  const auto bound = [&](size_t r) { return first + count * r / comm_.size(); };
  return {bound(rank), bound(size_t{rank} + 1) - bound(rank)};
}

Status GradientReducer::scatter(std::span<const float* const> mine, size_t first, size_t count) {
  const Piece own = piece_of(comm_.rank(), first, count);
  std::vector<Comm::Send> sends;
  std::vector<Comm::Receive> receives;
  size_t slot = 0;
  for (uint32_t peer = 0; peer < comm_.size(); ++peer) {
    const Piece theirs = piece_of(peer, first, count);
    for (size_t i = 0; i < nodes_[peer].size(); ++i, ++slot) {
      float* const piece = memory_->piece(slot);
      if (peer != comm_.rank()) {
        receives.push_back({peer, std::as_writable_bytes(std::span(piece, own.count))});
      } else {
        memory_->copy(piece, mine[i] + own.first, own.count);
      }
    }
    if (peer == comm_.rank()) continue;
    for (const float* sum : mine) sends.push_back({peer, std::as_bytes(std::span(sum + theirs.first, theirs.count))});
  }
  memory_->finish();
  return comm_.exchange(sends, receives);
}

void GradientReducer::fold(Piece own) {
  TreeFold tree(lanes_);
  uint32_t slot = 0;
  for (const auto& nodes : nodes_) {
    for (const TreeNode node : nodes) {
      tree.push(node, slot++, [&](uint32_t into, uint32_t from) {
        memory_->add(memory_->piece(into), memory_->piece(from), own.count);
      });
    }
  }
}

Status GradientReducer::gather(std::span<float> out, size_t first, size_t count) {
  const Piece own = piece_of(comm_.rank(), first, count);
  std::vector<Comm::Send> sends;
  std::vector<Comm::Receive> receives;
  for (uint32_t peer = 0; peer < comm_.size(); ++peer) {
    if (peer == comm_.rank()) continue;
    const Piece theirs = piece_of(peer, first, count);
    sends.push_back({peer, std::as_bytes(out.subspan(own.first, own.count))});
    receives.push_back({peer, std::as_writable_bytes(out.subspan(theirs.first, theirs.count))});
  }
  return comm_.exchange(sends, receives);
}

}  // namespace pitcrew::trainer
