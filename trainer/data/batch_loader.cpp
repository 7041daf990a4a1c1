#include "trainer/data/batch_loader.hpp"

namespace pitcrew::trainer {

BatchLoader::BatchLoader(const TokenSource& source, const SampleOrder& order, const Clock& clock, BatchShare share,
                         uint64_t next_sample, size_t ahead)
    : source_(source),
      order_(order),
      clock_(clock),
      share_(share),
      ahead_(ahead),
      next_sample_(next_sample),
      thread_([this] { read_ahead(); }) {}

BatchLoader::~BatchLoader() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

Result<Batch> BatchLoader::next() {
  const Instant start = clock_.now();
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !ready_.empty() || failure_; });
  waited_ += clock_.now() - start;
  if (ready_.empty()) return *failure_;
  Batch batch = std::move(ready_.front());
  ready_.pop_front();
  changed_.notify_all();
  return batch;
}

void BatchLoader::read_ahead() {
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stopping_ || ready_.size() < ahead_; });
      if (stopping_) return;
    }
    auto batch = read(next_sample_);
    next_sample_ += share_.batch;
    std::lock_guard lock(mutex_);
    if (batch) {
      ready_.push_back(std::move(*batch));
    } else {
      failure_ = batch.error();
    }
    changed_.notify_all();
    if (failure_) return;
  }
}

Result<Batch> BatchLoader::read(uint64_t first_sample) const {
  const size_t width = order_.sequence() + size_t{1};
  Batch batch;
  batch.first_sample = first_sample + share_.first;
  batch.tokens.resize(share_.count * width);
  for (uint64_t i = 0; i < share_.count; ++i) {
    const uint64_t sample = first_sample + share_.sample(i);
    Status read = source_.read(order_.first_token(sample), std::span(batch.tokens).subspan(i * width, width));
    if (!read) return read.error().with_context("sample " + std::to_string(sample));
  }
  return batch;
}

Result<std::vector<int32_t>> read_held_out(const TokenSource& source, const SampleOrder& order, uint64_t first,
                                           uint64_t count) {
  const size_t width = order.sequence() + size_t{1};
  std::vector<int32_t> tokens(count * width);
  for (uint64_t i = 0; i < count; ++i) {
    Status read = source.read(order.first_held_out_token(first + i), std::span(tokens).subspan(i * width, width));
    if (!read) return read.error().with_context("held-out sample " + std::to_string(first + i));
  }
  return tokens;
}

}  // namespace pitcrew::trainer
