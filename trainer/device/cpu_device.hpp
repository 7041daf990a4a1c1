#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/device/device.hpp"
#include "trainer/device/worker_pool.hpp"

namespace pitcrew::trainer {

struct CpuDeviceOptions {
  // Threads that kernels use, the compute stream's own included.
  unsigned threads = 1;
  // For tests: called on the stream's thread before each piece of work, with the stream's name. A test that blocks in
  // it delays that stream and no other.
  std::function<void(const std::string& stream)> before_work;
  // For tests: a released buffer is filled with 0xff bytes (a NaN in every float format) and kept until the device
  // dies, so that whoever still reads it computes NaN, and whoever wrote to it is found by damaged_buffers().
  bool poison = false;
  // For tests: host_memory() says no, so that whatever has another way for a GPU takes it.
  bool apart = false;
};

// The CPU as a device: every stream is a thread with a queue, so streams really run beside each other.
class CpuDevice : public Device {
 public:
  explicit CpuDevice(CpuDeviceOptions options);
  ~CpuDevice() override;

  Result<Buffer> allocate(std::string_view name, size_t bytes) override;
  Result<Buffer> allocate_host(std::string_view name, size_t bytes) override;
  Result<Buffer> register_host(std::byte* data, size_t bytes) override;
  std::unique_ptr<Stream> create_stream(std::string name) override;
  bool host_memory() const override { return !options_.apart; }
  std::string numerics() const override;

  // The threads that kernels spread over; one kernel at a time.
  WorkerPool& workers() { return workers_; }
  // Names of released buffers that were written to after their release (only with `poison`).
  std::vector<std::string> damaged_buffers() const;

 private:
  struct Released {
    std::string name;
    std::byte* data;
    size_t bytes;
  };
  void release(const std::string& name, std::byte* data, size_t bytes);

  CpuDeviceOptions options_;
  WorkerPool workers_;
  mutable std::mutex mutex_;
  std::vector<Released> released_;  // guarded by mutex_
};

}  // namespace pitcrew::trainer
