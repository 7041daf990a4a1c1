#include "trainer/train/side_by_side.hpp"

#include <mutex>
#include <thread>

namespace pitcrew::trainer {

End side_by_side(const std::function<End()>& aside, const std::function<End()>& here,
                 const std::function<void()>& end_aside) {
  std::mutex mutex;
  End first;
  // Whether this one came first.
  const auto keep = [&](End ended) {
    const std::scoped_lock lock(mutex);
    if (!ended || first) return false;
    first = std::move(ended);
    return true;
  };
  std::thread other([&] { keep(aside()); });
  if (keep(here())) end_aside();
  other.join();
  return first;
}

}  // namespace pitcrew::trainer
