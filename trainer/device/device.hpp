#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "lib/base/result.hpp"

namespace pitcrew::trainer {

// Memory of a device, or page-locked memory of the host. Move-only; gives itself back when it dies. Whoever releases it
// makes sure that no stream still has work on it.
class Buffer {
 public:
  using Release = std::function<void(std::byte*, size_t)>;

  Buffer() = default;
  Buffer(std::byte* data, size_t bytes, Release release) : data_(data), bytes_(bytes), release_(std::move(release)) {}
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer(std::move(other)).swap(*this);
    return *this;
  }
  ~Buffer() {
    if (data_ != nullptr) release_(data_, bytes_);
  }

  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(release_, other.release_);
  }

  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
  Release release_;
};

// A point in a stream's work. Usable from any thread, and after its stream is gone.
class Event {
 public:
  virtual ~Event() = default;
  virtual bool reached() const = 0;
  // Blocks the calling thread until the stream has got here.
  virtual void wait() const = 0;
};

// A queue of work that a device executes in order while the caller goes on. Streams run beside each other; what orders
// them are events. Memory handed to a stream must live until the stream has passed the work (record() and wait() tell).
// Any thread may enqueue. The destructor waits for everything enqueued.
class Stream {
 public:
  virtual ~Stream() = default;
  virtual const std::string& name() const = 0;

  virtual std::shared_ptr<const Event> record() = 0;
  // Work enqueued here from now on starts after `event`.
  virtual void wait(std::shared_ptr<const Event> event) = 0;
  // Between device and host in either direction, or within one of them.
  virtual void copy(void* to, const void* from, size_t bytes) = 0;
  virtual void fill(void* data, std::byte value, size_t bytes) = 0;
  void zero(void* data, size_t bytes) { fill(data, std::byte{0}, bytes); }
  // Runs `work` on the host in the stream's order. It must not enqueue on, or wait for, a stream.
  virtual void call(std::function<void()> work) = 0;
  // Blocks the calling thread until everything enqueued so far is done.
  virtual void synchronize() = 0;
  // For libraries that enqueue work of their own: a cudaStream_t, whose device is made the calling thread's current
  // one; on a CPU a HostStream*. Lives as long as the stream.
  virtual void* native() = 0;
};

// What a CPU's stream is to a library with a C interface: call() runs work(argument) in the stream's order.
struct HostStream {
  void (*call)(void* stream, void (*work)(void* argument), void* argument) = nullptr;
  void* stream = nullptr;
};

// Where tensors live and kernels run. Outlives its buffers and streams. Usable from any thread.
class Device {
 public:
  virtual ~Device() = default;
  // Zeroed, aligned to 64 bytes at least. kResourceExhausted names the buffer and its size.
  virtual Result<Buffer> allocate(std::string_view name, size_t bytes) = 0;
  // Page-locked host memory that copies run at full speed with. Zeroed.
  virtual Result<Buffer> allocate_host(std::string_view name, size_t bytes) = 0;
  // Makes memory that somebody else mapped page-locked, until the buffer dies; the memory must outlive it.
  virtual Result<Buffer> register_host(std::byte* data, size_t bytes) = 0;
  virtual std::unique_ptr<Stream> create_stream(std::string name) = 0;
  // Whether the host reads and writes the device's memory by plain loads and stores.
  virtual bool host_memory() const { return false; }
  // What the bits of results depend on, as a JSON object of strings and numbers: goes into every checkpoint's manifest,
  // and a difference at resume means "not bit for bit". On a CPU {"device", "instructions", "kernels", "threads"}.
  virtual std::string numerics() const = 0;
};

}  // namespace pitcrew::trainer
