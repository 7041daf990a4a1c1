#include "trainer/comm/nccl/bounded.hpp"

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

namespace pitcrew::trainer::nccl {

bool returns_within(Duration limit, std::function<void()> work) {
  struct Shared {
    std::mutex mutex;
    std::condition_variable changed;
    bool done = false;
  };
  auto shared = std::make_shared<Shared>();
  std::thread thread([shared, work = std::move(work)] {
    work();
    // Notified under the lock: nobody may look at what `done` guards before this thread has let go of it.
    std::lock_guard lock(shared->mutex);
    shared->done = true;
    shared->changed.notify_all();
  });
  bool done = false;
  {
    std::unique_lock lock(shared->mutex);
    done = shared->changed.wait_for(lock, limit, [&] { return shared->done; });
  }
  if (done) {
    thread.join();
  } else {
    thread.detach();
  }
  return done;
}

}  // namespace pitcrew::trainer::nccl
