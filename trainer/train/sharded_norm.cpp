#include "trainer/train/sharded_norm.hpp"

#include <algorithm>

namespace pitcrew::trainer {

template <typename T>
ShardedNorm<T>::ShardedNorm(SquareSumPlan plan, uint32_t shard, Comm& comm, Device& device, Kernels<T>& kernels,
                            Stream& stream)
    : plan_(std::move(plan)), shard_(shard), comm_(comm), device_(device), kernels_(kernels), stream_(stream) {}

template <typename T>
uint64_t ShardedNorm<T>::bytes(const SquareSumPlan& plan, uint32_t shard) {
  return plan.shared_elements(shard) * sizeof(Wide<T>) + plan.nodes().size() * sizeof(double);
}

template <typename T>
Result<std::unique_ptr<ShardedNorm<T>>> ShardedNorm<T>::create(SquareSumPlan squares, uint32_t shard, Comm& comm,
                                                               Device& device, Kernels<T>& kernels, Stream& stream) {
  std::unique_ptr<ShardedNorm> norm(new ShardedNorm(std::move(squares), shard, comm, device, kernels, stream));
  const SquareSumPlan& plan = norm->plan_;
  PITCREW_ASSIGN(norm->blocks_, device.allocate("shared blocks", plan.shared_elements(shard) * sizeof(Wide<T>)));
  PITCREW_ASSIGN(norm->sums_, device.allocate("square sums", plan.nodes().size() * sizeof(double)));
  PITCREW_ASSIGN(norm->host_sums_, device.allocate_host("square sums", plan.nodes().size() * sizeof(double)));
  if (comm.device_memory()) return norm;
  uint64_t elements = 0;
  for (const auto& fragment : plan.fragments()) {
    if (fragment.from != fragment.to && (fragment.from == shard || fragment.to == shard)) elements += fragment.count;
  }
  PITCREW_ASSIGN(norm->host_fragments_, device.allocate_host("shared blocks", elements * sizeof(Wide<T>)));
  return norm;
}

template <typename T>
uint32_t ShardedNorm<T>::first_of(uint32_t shard) const {
  uint32_t first = 0;
  for (uint32_t before = 0; before < shard; ++before) first += plan_.count(before);
  return first;
}

// Each shared block to the shard that sums it up.
template <typename T>
Status ShardedNorm<T>::share_blocks(const Wide<T>* slice) {
  const bool staged = !comm_.device_memory();
  auto* staging = host_fragments_.as<Wide<T>>();
  auto* blocks = blocks_.as<Wide<T>>();
  std::vector<Comm::Send> sends;
  std::vector<Comm::Receive> receives;
  std::vector<Wide<T>*> targets;
  for (const auto& fragment : plan_.fragments()) {
    const uint64_t bytes = fragment.count * sizeof(Wide<T>);
    const bool from = fragment.from == shard_, to = fragment.to == shard_;
    if (from && to) stream_.copy(blocks + fragment.target, slice + fragment.offset, bytes);
    if (from == to) continue;
    if (from) {
      const Wide<T>* source = slice + fragment.offset;
      if (staged) {
        stream_.copy(staging, source, bytes);
        source = staging;
      }
      sends.push_back({fragment.to, std::as_bytes(std::span(source, fragment.count))});
    } else {
      Wide<T>* const target = blocks + fragment.target;
      receives.push_back({fragment.from, std::as_writable_bytes(std::span(staged ? staging : target, fragment.count))});
      targets.push_back(target);
    }
    if (staged) staging += fragment.count;
  }
  stream_.synchronize();
  PITCREW_TRY(comm_.exchange(sends, receives));
  for (size_t i = 0; staged && i < targets.size(); ++i)
    stream_.copy(targets[i], receives[i].data.data(), receives[i].data.size());
  return {};
}

template <typename T>
Result<double> ShardedNorm<T>::square_sum(const Wide<T>* slice) {
  PITCREW_TRY(share_blocks(slice));
  uint32_t own = first_of(shard_);
  for (const auto& node : plan_.nodes()) {
    if (node.shard != shard_) continue;
    const Wide<T>* x = (node.shared ? blocks_.as<Wide<T>>() : slice) + node.offset;
    kernels_.enqueue(stream_, SquareSum<Wide<T>>{node.count, x, sums_.as<double>() + own++});
  }
  PITCREW_ASSIGN(std::vector<double> sums, share_sums());
  return plan_.total(std::move(sums));
}

template <typename T>
Result<std::vector<double>> ShardedNorm<T>::share_sums() {
  const bool staged = !comm_.device_memory();
  auto* all = host_sums_.as<double>();
  const auto of = [&](Buffer& sums, uint32_t shard) {
    return std::span(sums.as<double>() + first_of(shard), plan_.count(shard));
  };
  Buffer& moved = staged ? host_sums_ : sums_;
  if (staged) stream_.copy(of(host_sums_, shard_).data(), of(sums_, shard_).data(), of(sums_, shard_).size_bytes());
  stream_.synchronize();
  std::vector<Comm::Send> sends;
  std::vector<Comm::Receive> receives;
  for (uint32_t peer = 0; peer < comm_.size(); ++peer) {
    if (peer == shard_) continue;
    sends.push_back({peer, std::as_bytes(of(moved, shard_))});
    receives.push_back({peer, std::as_writable_bytes(of(moved, peer))});
  }
  PITCREW_TRY(comm_.exchange(sends, receives));
  if (!staged) {
    stream_.copy(all, sums_.data(), sums_.bytes());
    stream_.synchronize();
  }
  std::vector<double> sums;
  std::vector<uint32_t> next;
  for (uint32_t shard = 0; shard < comm_.size(); ++shard) next.push_back(first_of(shard));
  for (const auto& node : plan_.nodes()) sums.push_back(all[next[node.shard]++]);
  return sums;
}

template class ShardedNorm<float>;
template class ShardedNorm<BF16>;

}  // namespace pitcrew::trainer
