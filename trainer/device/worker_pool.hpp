#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace pitcrew::trainer {

// The threads that a kernel spreads over: the caller and `threads - 1` workers. The parts of a kernel are cut by its
// shape and write to disjoint places, so that bits do not depend on who takes which part.
// Idle workers spin for some microseconds, then sleep. A worker that the machine wakes late finds its parts taken by
// the others: nobody waits for a thread that hasn't begun. The destructor joins them; no run() may be under way.
class WorkerPool {
 public:
  explicit WorkerPool(unsigned threads);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  unsigned threads() const { return static_cast<unsigned>(scratch_.size()); }

  // Calls body(part, worker) for every part in [0, parts), each once, and returns when all are done. `worker` is below
  // threads() and never the same for two parts running at once. One run at a time; a second caller waits.
  template <typename Body>
  void run(size_t parts, const Body& body) {
    run_erased(
        parts,
        [](const void* object, size_t part, unsigned worker) { (*static_cast<const Body*>(object))(part, worker); },
        &body);
  }

  // Held by whoever runs a kernel, from its first use of shared() to its last run().
  std::mutex& kernel() { return kernel_; }

  // Memory of one worker that lasts for the part it is working on; 64-byte aligned; grows to the largest ever asked
  // for.
  std::byte* scratch(unsigned worker, size_t bytes);
  // Memory shared by all parts of the kernel that is running; asked for by the kernel's caller before run().
  std::byte* shared(size_t bytes);

 private:
  using Call = void (*)(const void*, size_t, unsigned);
  struct Job {
    Call call = nullptr;
    const void* object = nullptr;
    size_t parts = 0;
  };
  struct Scratch {
    std::byte* data = nullptr;
    size_t bytes = 0;
    std::byte* at_least(size_t wanted);
    ~Scratch();
  };

  void run_erased(size_t parts, Call call, const void* object);
  void work(unsigned worker);
  void take_parts(const Job& job, unsigned worker);

  std::mutex kernel_;
  std::mutex running_;  // held by the caller of run()
  std::mutex mutex_;
  std::condition_variable wake_;
  Job job_;                              // guarded by mutex_
  bool open_ = false;                    // guarded by mutex_: workers may join the job
  bool stopping_ = false;                // guarded by mutex_
  unsigned sleeping_ = 0;                // guarded by mutex_
  std::atomic<uint64_t> generation_{0};  // grows, under mutex_, with every job and at the end
  std::atomic<size_t> next_{0};          // part of the job
  std::atomic<unsigned> joined_{0};      // workers at the job; grows under mutex_ alone
  std::vector<Scratch> scratch_;
  Scratch shared_;
  std::vector<std::thread> workers_;
};

}  // namespace pitcrew::trainer
