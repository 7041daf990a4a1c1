#pragma once

#include <string>

#include <cuda_runtime_api.h>

#include "trainer/device/device.hpp"

namespace pitcrew::trainer::cuda {

// A GPU. CUDA's current device is a thread's own; whatever is called makes it this one first.
class CudaDevice final : public Device {
 public:
  static Result<std::unique_ptr<CudaDevice>> create(int ordinal);

  Result<Buffer> allocate(std::string_view name, size_t bytes) override;
  Result<Buffer> allocate_host(std::string_view name, size_t bytes) override;
  Result<Buffer> register_host(std::byte* data, size_t bytes) override;
  std::unique_ptr<Stream> create_stream(std::string name) override;
  std::string numerics() const override;

  const std::string& name() const { return name_; }
  // The GPU's UUID, in hexadecimal.
  const std::string& identity() const { return identity_; }
  struct Memory {
    uint64_t free = 0, total = 0;
  };
  Memory memory() const;

 private:
  CudaDevice(int ordinal, const cudaDeviceProp& properties);

  const int ordinal_;
  const std::string name_;
  const std::string architecture_;
  const std::string identity_;
};

// A stream of the device's queue of work. Copies from and to memory that allocate_host() gave run beside kernels of
// other streams; from other host memory CUDA copies in pieces, and the call returns when the source has been read.
class CudaStream final : public Stream {
 public:
  CudaStream(int ordinal, std::string name);
  ~CudaStream() override;

  const std::string& name() const override { return name_; }
  std::shared_ptr<const Event> record() override;
  void wait(std::shared_ptr<const Event> event) override;
  void copy(void* to, const void* from, size_t bytes) override;
  void fill(void* data, std::byte value, size_t bytes) override;
  void call(std::function<void()> work) override;
  void synchronize() override;
  void* native() override { return use(); }

  // For whoever launches kernels on it; the device is made current.
  cudaStream_t use() const;

 private:
  const int ordinal_;
  const std::string name_;
  cudaStream_t stream_ = nullptr;
};

}  // namespace pitcrew::trainer::cuda
