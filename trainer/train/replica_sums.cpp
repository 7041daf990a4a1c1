#include "trainer/train/replica_sums.hpp"

#include <algorithm>

namespace pitcrew::trainer {

ReplicaSums::ReplicaSums(const ShardLayout& layout, std::vector<float*> sums, float* result, GradientReducer& reducer,
                         Device& device, Stream& stream)
    : layout_(layout),
      sums_(std::move(sums)),
      result_(result),
      reducer_(reducer),
      device_(device),
      stream_(stream),
      thread_([this](std::stop_token stop) { reduce_all(std::move(stop)); }) {}

ReplicaSums::~ReplicaSums() {
  {
    const std::lock_guard lock(mutex_);
    jobs_.clear();
    if (busy_) reducer_.abort();
  }
  thread_.request_stop();
  thread_.join();
}

void ReplicaSums::give(uint32_t unit, std::shared_ptr<const Event> after) {
  const std::lock_guard lock(mutex_);
  if (failure_) return;
  jobs_.push_back({unit, std::move(after)});
  changed_.notify_all();
}

Status ReplicaSums::drain() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return failure_ || (jobs_.empty() && !busy_); });
  return failure_ ? Status(*failure_) : Status();
}

void ReplicaSums::reduce_all(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  while (changed_.wait(lock, stop, [&] { return !jobs_.empty(); })) {
    const Job job = std::move(jobs_.front());
    jobs_.pop_front();
    busy_ = true;
    lock.unlock();
    const Status done = reduce(job);
    lock.lock();
    busy_ = false;
    if (!done && !failure_) {
      failure_ = done.error().with_context("reduce gradients over replicas");
      jobs_.clear();
    }
    changed_.notify_all();
  }
}

Status ReplicaSums::reduce(const Job& job) {
  if (job.after) job.after->wait();
  const uint64_t elements = layout_.piece(job.unit), offset = layout_.offset(job.unit);
  std::vector<const float*> mine;
  for (const float* sum : sums_) mine.push_back(sum + offset);
  float* const result = result_ + offset;
  if (device_.host_memory() || reducer_.device_memory()) return reducer_.reduce(mine, std::span(result, elements));

  const uint64_t bytes = elements * sizeof(float);
  for (size_t i = 0; i < std::max<size_t>(1, sums_.size()); ++i) {
    if (i == host_sums_.size()) host_sums_.emplace_back();
    if (host_sums_[i].bytes() >= bytes) continue;
    PITCREW_ASSIGN(host_sums_[i], device_.allocate_host("gradients under way to peers", bytes));
  }
  for (size_t i = 0; i < sums_.size(); ++i) {
    stream_.copy(host_sums_[i].data(), mine[i], bytes);
    mine[i] = host_sums_[i].as<float>();
  }
  stream_.synchronize();
  PITCREW_TRY(reducer_.reduce(mine, std::span(host_sums_[0].as<float>(), elements)));
  stream_.copy(result, host_sums_[0].data(), bytes);
  stream_.synchronize();
  return {};
}

}  // namespace pitcrew::trainer
