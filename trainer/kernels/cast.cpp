#include "trainer/kernels/cast.hpp"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "lib/base/digest.hpp"
#include "trainer/device/worker_pool.hpp"

namespace pitcrew::trainer {

namespace {

constexpr size_t kBlock = 16384;

}  // namespace

template <typename T>
void run(WorkerPool& workers, const Cast<T>& op) {
  workers.run((op.elements + kBlock - 1) / kBlock, [&](size_t part, unsigned) {
    const size_t end = std::min(op.elements, (part + 1) * kBlock);
    for (size_t i = part * kBlock; i < end; ++i) {
      if constexpr (std::is_same_v<T, BF16>) {
        op.to[i] = split_master(op.from[i]).weight;
      } else {
        op.to[i] = static_cast<T>(op.from[i]);
      }
    }
  });
}

void run(WorkerPool& workers, const SplitMasters& op) {
  workers.run((op.elements + kBlock - 1) / kBlock, [&](size_t part, unsigned) {
    const size_t end = std::min(op.elements, (part + 1) * kBlock);
    for (size_t i = part * kBlock; i < end; ++i) {
      const MasterHalves halves = split_master(op.masters[i]);
      op.weights[i] = halves.weight;
      op.remainders[i] = halves.remainder;
    }
  });
}

void run(WorkerPool& workers, const JoinMasters& op) {
  workers.run((op.elements + kBlock - 1) / kBlock, [&](size_t part, unsigned) {
    const size_t end = std::min(op.elements, (part + 1) * kBlock);
    for (size_t i = part * kBlock; i < end; ++i) op.masters[i] = join_master({op.weights[i], op.remainders[i]});
  });
}

void run(WorkerPool& workers, const Digest& op) {
  const auto* data = static_cast<const std::byte*>(op.data);
  workers.run(op.count(), [&](size_t part, unsigned) {
    const size_t first = part * op.chunk;
    op.digests[part] = xxh3(data + first, std::min(op.chunk, op.bytes - first));
  });
}

void run(WorkerPool& workers, const DigestList& op) {
  for (size_t r = 0; r < op.count; ++r) {
    const DigestRange& range = op.ranges[r];
    Digest digest{range.data, range.bytes, DigestList::kChunk, op.digests + range.first_digest};
    std::vector<float> joined(range.remainders == nullptr ? 0 : range.bytes / sizeof(float));
    if (range.remainders != nullptr) {
      run(workers, JoinMasters{joined.size(), static_cast<const BF16*>(range.data), range.remainders, joined.data()});
      digest.data = joined.data();
    }
    run(workers, digest);
  }
}

template void run(WorkerPool&, const Cast<float>&);
template void run(WorkerPool&, const Cast<double>&);
template void run(WorkerPool&, const Cast<BF16>&);

}  // namespace pitcrew::trainer
