#include "trainer/device/cpu_stream.hpp"

#include <cstring>

namespace pitcrew::trainer {

namespace {

class CpuEvent : public Event {
 public:
  bool reached() const override {
    std::lock_guard lock(mutex_);
    return reached_;
  }
  void wait() const override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return reached_; });
  }
  void reach() {
    {
      std::lock_guard lock(mutex_);
      reached_ = true;
    }
    changed_.notify_all();
  }

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  bool reached_ = false;
};

}  // namespace

CpuStream::CpuStream(std::string name, std::function<void(const std::string& stream)> before_work)
    : native_{[](void* stream, void (*work)(void*), void* argument) {
                static_cast<CpuStream*>(stream)->call([=] { work(argument); });
              },
              this},
      name_(std::move(name)),
      before_work_(std::move(before_work)),
      thread_([this] { execute(); }) {}

CpuStream::~CpuStream() {
  {
    std::lock_guard lock(mutex_);
    ending_ = true;
  }
  more_.notify_one();
  thread_.join();
}

void CpuStream::enqueue(std::function<void()> work) {
  bool was_empty;
  {
    std::lock_guard lock(mutex_);
    was_empty = queue_.empty();
    queue_.push_back(std::move(work));
  }
  if (was_empty) more_.notify_one();
}

void CpuStream::execute() {
  std::deque<std::function<void()>> batch;
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      more_.wait(lock, [this] { return !queue_.empty() || ending_; });
      if (queue_.empty()) return;
      batch.swap(queue_);
    }
    for (; !batch.empty(); batch.pop_front()) batch.front()();
  }
}

std::shared_ptr<const Event> CpuStream::record() {
  auto event = std::make_shared<CpuEvent>();
  enqueue([event] { event->reach(); });
  return event;
}

void CpuStream::wait(std::shared_ptr<const Event> event) {
  enqueue([event = std::move(event)] { event->wait(); });
}

void CpuStream::copy(void* to, const void* from, size_t bytes) {
  call([=] { std::memcpy(to, from, bytes); });
}

void CpuStream::fill(void* data, std::byte value, size_t bytes) {
  call([=] { std::memset(data, std::to_integer<int>(value), bytes); });
}

void CpuStream::call(std::function<void()> work) {
  if (!before_work_) return enqueue(std::move(work));
  enqueue([this, work = std::move(work)] {
    before_work_(name_);
    work();
  });
}

void CpuStream::synchronize() { record()->wait(); }

}  // namespace pitcrew::trainer
