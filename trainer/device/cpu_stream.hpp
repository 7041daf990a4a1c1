#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "trainer/device/device.hpp"

namespace pitcrew::trainer {

// A thread that executes what is enqueued, in order. Ends, after the last piece of work, in its destructor.
class CpuStream : public Stream {
 public:
  CpuStream(std::string name, std::function<void(const std::string& stream)> before_work);
  ~CpuStream() override;

  const std::string& name() const override { return name_; }
  std::shared_ptr<const Event> record() override;
  void wait(std::shared_ptr<const Event> event) override;
  void copy(void* to, const void* from, size_t bytes) override;
  void fill(void* data, std::byte value, size_t bytes) override;
  void call(std::function<void()> work) override;
  void synchronize() override;
  void* native() override { return &native_; }

 private:
  void enqueue(std::function<void()> work);
  void execute();

  HostStream native_;
  const std::string name_;
  const std::function<void(const std::string&)> before_work_;
  std::mutex mutex_;
  std::condition_variable more_;
  std::deque<std::function<void()>> queue_;  // guarded by mutex_
  bool ending_ = false;                      // guarded by mutex_
  std::thread thread_;
};

}  // namespace pitcrew::trainer
