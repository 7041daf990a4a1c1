#include "trainer/device/worker_pool.hpp"

#include <cstdlib>
#include <new>

namespace pitcrew::trainer {

namespace {

// About 20 µs: longer than the gap between two kernels of a stream, too short to cost the neighbours of a rank much.
constexpr int kSpins = 2000;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

std::byte* WorkerPool::Scratch::at_least(size_t wanted) {
  if (wanted > bytes) {
    std::free(data);
    bytes = (wanted + 4095) / 4096 * 4096;
    data = static_cast<std::byte*>(std::aligned_alloc(4096, bytes));
    if (data == nullptr) throw std::bad_alloc();
  }
  return data;
}

WorkerPool::Scratch::~Scratch() { std::free(data); }

WorkerPool::WorkerPool(unsigned threads) : scratch_(threads == 0 ? 1 : threads) {
  for (unsigned worker = 1; worker < this->threads(); ++worker) workers_.emplace_back([this, worker] { work(worker); });
}

WorkerPool::~WorkerPool() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    generation_.fetch_add(1, std::memory_order_release);
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

std::byte* WorkerPool::scratch(unsigned worker, size_t bytes) { return scratch_[worker].at_least(bytes); }
std::byte* WorkerPool::shared(size_t bytes) { return shared_.at_least(bytes); }

void WorkerPool::take_parts(const Job& job, unsigned worker) {
  for (;;) {
    const size_t part = next_.fetch_add(1, std::memory_order_relaxed);
    if (part >= job.parts) return;
    job.call(job.object, part, worker);
  }
}

void WorkerPool::run_erased(size_t parts, Call call, const void* object) {
  std::lock_guard running(running_);
  if (workers_.empty() || parts <= 1) {
    for (size_t part = 0; part < parts; ++part) call(object, part, 0);
    return;
  }
  const Job job{call, object, parts};
  bool wake;
  {
    std::lock_guard lock(mutex_);
    job_ = job;
    next_.store(0, std::memory_order_relaxed);
    open_ = true;
    generation_.fetch_add(1, std::memory_order_release);
    wake = sleeping_ > 0;
  }
  if (wake) wake_.notify_all();
  take_parts(job, 0);
  {
    std::lock_guard lock(mutex_);
    open_ = false;
  }
  for (int spins = 0; joined_.load(std::memory_order_acquire) != 0; ++spins) {
    if (spins < kSpins) {
      relax();
    } else {
      std::this_thread::yield();
    }
  }
}

void WorkerPool::work(unsigned worker) {
  uint64_t seen = 0;
  for (;;) {
    for (int spins = 0; spins < kSpins && generation_.load(std::memory_order_acquire) == seen; ++spins) relax();
    Job job;
    {
      std::unique_lock lock(mutex_);
      ++sleeping_;
      wake_.wait(lock, [&] { return generation_.load(std::memory_order_relaxed) != seen; });
      --sleeping_;
      seen = generation_.load(std::memory_order_relaxed);
      if (stopping_) return;
      if (!open_) continue;
      job = job_;
      joined_.fetch_add(1, std::memory_order_relaxed);
    }
    take_parts(job, worker);
    joined_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace pitcrew::trainer
