#include "trainer/device/cpu_device.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include <unistd.h>

#include "trainer/device/cpu_stream.hpp"
#include "trainer/device/instructions.hpp"

namespace pitcrew::trainer {

namespace {

constexpr size_t kAlignment = 4096;
constexpr std::byte kPoison{0xff};

}  // namespace

CpuDevice::CpuDevice(CpuDeviceOptions options) : options_(std::move(options)), workers_(options_.threads) {}

CpuDevice::~CpuDevice() {
  for (const Released& released : released_) std::free(released.data);
}

Result<Buffer> CpuDevice::allocate(std::string_view name, size_t bytes) {
  const size_t rounded = std::max<size_t>(1, (bytes + kAlignment - 1) / kAlignment) * kAlignment;
  // The kernel would promise more than the machine has, and end us when we touch it.
  const auto pages = static_cast<size_t>(::sysconf(_SC_PHYS_PAGES)),
             page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const bool possible = rounded >= bytes && rounded / page < pages;
  void* memory = possible ? std::aligned_alloc(kAlignment, rounded) : nullptr;
  if (memory == nullptr) {
    return Error(Code::kResourceExhausted,
                 "allocate " + std::to_string(bytes) + " bytes for " + std::string(name) +
                     ": the machine has not that much memory; choose a smaller micro-batch or model");
  }
  auto* data = static_cast<std::byte*>(memory);
  std::memset(data, 0, rounded);
  return Buffer(data, bytes,
                [this, name = std::string(name)](std::byte* released, size_t size) { release(name, released, size); });
}

Result<Buffer> CpuDevice::allocate_host(std::string_view name, size_t bytes) { return allocate(name, bytes); }

Result<Buffer> CpuDevice::register_host(std::byte* data, size_t bytes) {
  return Buffer(data, bytes, [](std::byte*, size_t) {});
}

void CpuDevice::release(const std::string& name, std::byte* data, size_t bytes) {
  if (!options_.poison) return std::free(data);
  std::memset(data, static_cast<int>(kPoison), bytes);
  std::lock_guard lock(mutex_);
  released_.push_back({name, data, bytes});
}

std::vector<std::string> CpuDevice::damaged_buffers() const {
  std::lock_guard lock(mutex_);
  std::vector<std::string> names;
  for (const Released& released : released_) {
    const auto* end = released.data + released.bytes;
    if (std::find_if(released.data, released.data + released.bytes, [](std::byte b) { return b != kPoison; }) != end) {
      names.push_back(released.name);
    }
  }
  return names;
}

std::unique_ptr<Stream> CpuDevice::create_stream(std::string name) {
  return std::make_unique<CpuStream>(std::move(name), options_.before_work);
}

std::string CpuDevice::numerics() const {
  // The version names the order of additions in our kernels: it grows whenever a change gives other bits.
  return R"({"device":"cpu","instructions":")" + std::string(to_string(instructions())) +
         R"(","kernels":"pitcrew-cpu-1","threads":)" + std::to_string(options_.threads) + "}";
}

}  // namespace pitcrew::trainer
