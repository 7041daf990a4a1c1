#include "trainer/cuda/cuda_device.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "lib/base/digest.hpp"
#include "trainer/cuda/failure.hpp"

namespace pitcrew::trainer::cuda {

namespace {

void make_current(int ordinal) {
  thread_local int current = -1;
  if (current == ordinal) return;
  check(cudaSetDevice(ordinal), "be chosen");
  current = ordinal;
}

class CudaEvent final : public Event {
 public:
  CudaEvent(int ordinal, cudaStream_t stream) : ordinal_(ordinal) {
    check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "make an event");
    check(cudaEventRecord(event_, stream), "record an event");
  }
  ~CudaEvent() override {
    make_current(ordinal_);
    check(cudaEventDestroy(event_), "give back an event");
  }
  bool reached() const override {
    make_current(ordinal_);
    const cudaError_t state = cudaEventQuery(event_);
    if (state == cudaErrorNotReady) return false;
    check(state, "reach an event");
    return true;
  }
  void wait() const override {
    make_current(ordinal_);
    check(cudaEventSynchronize(event_), "reach an event");
  }
  cudaEvent_t handle() const { return event_; }

 private:
  const int ordinal_;
  cudaEvent_t event_ = nullptr;
};

}  // namespace

CudaDevice::CudaDevice(int ordinal, const cudaDeviceProp& properties)
    : ordinal_(ordinal),
      name_(properties.name),
      architecture_(std::to_string(properties.major) + "." + std::to_string(properties.minor)),
      identity_(hex64(xxh3(&properties.uuid, sizeof properties.uuid))) {}

Result<std::unique_ptr<CudaDevice>> CudaDevice::create(int ordinal) {
  const std::string attempt = "open GPU " + std::to_string(ordinal);
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess) return cuda_error(attempt, error);
  if (ordinal >= count) {
    return Error(Code::kNotFound, attempt + ": there are " + std::to_string(count) +
                                      "; start at most that many ranks here, or see CUDA_VISIBLE_DEVICES");
  }
  cudaDeviceProp properties;
  if (const cudaError_t error = cudaGetDeviceProperties(&properties, ordinal); error != cudaSuccess)
    return cuda_error(attempt, error);
  if (properties.major < 8) {
    return Error(Code::kUnsupported,
                 attempt + ": " + properties.name + " has no BF16 tensor cores; it takes an Ampere (A100) or newer");
  }
  // Makes the context, which is where a GPU that is broken or full says so.
  if (const cudaError_t error = cudaSetDevice(ordinal); error != cudaSuccess) return cuda_error(attempt, error);
  if (const cudaError_t error = cudaFree(nullptr); error != cudaSuccess) return cuda_error(attempt, error);
  return std::unique_ptr<CudaDevice>(new CudaDevice(ordinal, properties));
}

CudaDevice::Memory CudaDevice::memory() const {
  make_current(ordinal_);
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "say how much memory is free");
  return {free, total};
}

Result<Buffer> CudaDevice::allocate(std::string_view name, size_t bytes) {
  make_current(ordinal_);
  void* data = nullptr;
  if (const cudaError_t error = cudaMalloc(&data, std::max<size_t>(bytes, 1)); error != cudaSuccess) {
    // An allocation that fails leaves its error behind for the next call to find.
    (void)cudaGetLastError();
    return Error(
        Code::kResourceExhausted,
        "allocate " + std::to_string(bytes) + " bytes for " + std::string(name) + " on the GPU, where " +
            std::to_string(memory().free) +
            " are free; choose a smaller batch.micro, or recompute more; `pitcrew-train plan` tells what is needed");
  }
  check(cudaMemset(data, 0, bytes), "zero new memory");
  check(cudaDeviceSynchronize(), "zero new memory");
  return Buffer(static_cast<std::byte*>(data), bytes, [ordinal = ordinal_](std::byte* released, size_t) {
    make_current(ordinal);
    check(cudaFree(released), "give back memory");
  });
}

Result<Buffer> CudaDevice::allocate_host(std::string_view name, size_t bytes) {
  make_current(ordinal_);
  void* data = nullptr;
  if (const cudaError_t error = cudaHostAlloc(&data, std::max<size_t>(bytes, 1), cudaHostAllocPortable);
      error != cudaSuccess) {
    (void)cudaGetLastError();
    return Error(Code::kResourceExhausted, "allocate " + std::to_string(bytes) +
                                               " bytes of page-locked host memory for " + std::string(name) +
                                               ": raise the container's memory limit, or lower checkpoint.memory");
  }
  std::memset(data, 0, bytes);
  return Buffer(static_cast<std::byte*>(data), bytes, [ordinal = ordinal_](std::byte* released, size_t) {
    make_current(ordinal);
    check(cudaFreeHost(released), "give back page-locked memory");
  });
}

Result<Buffer> CudaDevice::register_host(std::byte* data, size_t bytes) {
  make_current(ordinal_);
  if (const cudaError_t error = cudaHostRegister(data, bytes, cudaHostRegisterPortable); error != cudaSuccess) {
    (void)cudaGetLastError();
    return Error(Code::kResourceExhausted,
                 "page-lock " + std::to_string(bytes) + " bytes of host memory: " + cudaGetErrorString(error) +
                     "; raise the container's memory limit and its limit of locked memory (ulimit -l)");
  }
  return Buffer(data, bytes, [ordinal = ordinal_](std::byte* registered, size_t) {
    make_current(ordinal);
    check(cudaHostUnregister(registered), "give back page-locked memory");
  });
}

std::unique_ptr<Stream> CudaDevice::create_stream(std::string name) {
  return std::make_unique<CudaStream>(ordinal_, std::move(name));
}

std::string CudaDevice::numerics() const {
  int runtime = 0;
  check(cudaRuntimeGetVersion(&runtime), "tell the runtime's version");
  // The kernels' version names the order of additions in our own: it grows whenever a change gives other bits.
  return R"({"device":"cuda","gpu":")" + name_ + R"(","architecture":")" + architecture_ +
         R"(","kernels":"pitcrew-cuda-2","attention":"own","runtime":)" + std::to_string(runtime) + "}";
}

CudaStream::CudaStream(int ordinal, std::string name) : ordinal_(ordinal), name_(std::move(name)) {
  make_current(ordinal_);
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "make a stream");
}

CudaStream::~CudaStream() {
  synchronize();
  check(cudaStreamDestroy(stream_), "give back a stream");
}

cudaStream_t CudaStream::use() const {
  make_current(ordinal_);
  return stream_;
}

std::shared_ptr<const Event> CudaStream::record() { return std::make_shared<CudaEvent>(ordinal_, use()); }

void CudaStream::wait(std::shared_ptr<const Event> event) {
  check(cudaStreamWaitEvent(use(), static_cast<const CudaEvent&>(*event).handle(), 0), "wait for an event");
}

void CudaStream::copy(void* to, const void* from, size_t bytes) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, use()), "copy");
}

void CudaStream::fill(void* data, std::byte value, size_t bytes) {
  check(cudaMemsetAsync(data, std::to_integer<int>(value), bytes, use()), "fill memory");
}

void CudaStream::call(std::function<void()> work) {
  auto* owned = new std::function<void()>(std::move(work));
  check(cudaLaunchHostFunc(
            use(),
            [](void* argument) {
              const std::unique_ptr<std::function<void()>> once(static_cast<std::function<void()>*>(argument));
              (*once)();
            },
            owned),
        "call the host");
}

void CudaStream::synchronize() { check(cudaStreamSynchronize(use()), "finish its work"); }

}  // namespace pitcrew::trainer::cuda
