#include "agent/check/gpu/gpu_backend.hpp"

#include <array>

#include "agent/check/cuda/abi.h"
#include "lib/base/dynamic_library.hpp"

namespace pitcrew::check {
namespace {

struct Functions {
  decltype(&pitcrew_check_abi) abi = nullptr;
  decltype(&pitcrew_check_count) count = nullptr;
  decltype(&pitcrew_check_device) device = nullptr;
  decltype(&pitcrew_check_memory) memory = nullptr;
  decltype(&pitcrew_check_burn) burn = nullptr;
  decltype(&pitcrew_check_host) host = nullptr;
  decltype(&pitcrew_check_all_reduce) all_reduce = nullptr;
};

using Words = std::array<char, 512>;

Status status_of(int code, const char* what, const Words& words) {
  if (code == 0) return {};
  const Code kind = code == PITCREW_CHECK_BROKEN        ? Code::kDataLoss
                    : code == PITCREW_CHECK_UNSUPPORTED ? Code::kUnsupported
                                                        : Code::kUnavailable;
  return Error(kind, std::string(what) + ": " + words.data());
}

class GpuBackend final : public Backend {
 public:
  explicit GpuBackend(Functions functions) : functions_(functions) {}

  Status find_devices() {
    Words words{};
    int count = 0;
    PITCREW_TRY(status_of(functions_.count(&count, words.data(), words.size()), "look for GPUs", words));
    if (count <= 0) return Error(Code::kUnavailable, "look for GPUs: there is none");
    for (int i = 0; i < count; ++i) {
      PitcrewCheckDevice device{};
      PITCREW_TRY(status_of(functions_.device(i, &device, words.data(), words.size()), "ask a GPU who it is", words));
      devices_.push_back({device.uuid, device.model, device.memory});
    }
    return {};
  }

  std::string name() const override { return "cuda"; }
  const std::vector<Device>& devices() const override { return devices_; }

  Result<MemoryOutcome> memory(size_t device, double share, Duration time, uint64_t seed) override {
    Words words{};
    PitcrewCheckMemory out{};
    PITCREW_TRY(status_of(
        functions_.memory(static_cast<int>(device), share, to_seconds(time), seed, &out, words.data(), words.size()),
        "memory", words));
    return MemoryOutcome{out.bytes, out.passes, out.wrong_words, out.first_wrong, out.flipped_bits, out.copy_bandwidth};
  }

  Result<BurnOutcome> burn(size_t device, Duration time, uint64_t seed) override {
    constexpr size_t kMost = 1 << 16;
    Words words{};
    BurnOutcome outcome;
    outcome.digests.resize(kMost);
    size_t count = 0;
    PITCREW_TRY(status_of(functions_.burn(static_cast<int>(device), to_seconds(time), seed, outcome.digests.data(),
                                          kMost, &count, &outcome.flops, words.data(), words.size()),
                          "burn", words));
    outcome.digests.resize(std::min(count, kMost));
    return outcome;
  }

  Result<HostOutcome> host(size_t device, Duration time, uint64_t seed) override {
    Words words{};
    PitcrewCheckHost out{};
    PITCREW_TRY(
        status_of(functions_.host(static_cast<int>(device), to_seconds(time), seed, &out, words.data(), words.size()),
                  "host", words));
    return HostOutcome{out.to_device, out.from_device, out.wrong_bytes};
  }

  Result<CollectiveOutcome> all_reduce(Duration time, uint64_t seed) override {
    Words words{};
    PitcrewCheckCollective out{};
    PITCREW_TRY(status_of(functions_.all_reduce(static_cast<int>(devices_.size()), to_seconds(time), seed, &out,
                                                words.data(), words.size()),
                          "all-reduce", words));
    return CollectiveOutcome{out.bus_bandwidth, out.wrong_elements};
  }

 private:
  Functions functions_;
  std::vector<Device> devices_;
};

}  // namespace

Result<std::unique_ptr<Backend>> open_gpu_backend(const std::string& library) {
  PITCREW_ASSIGN(const DynamicLibrary loaded,
                 DynamicLibrary::load({.what = "the check's work on GPUs",
                                       .places = {library},
                                       .remedy = "it is part of the image pitcrew-check, and of a build with CUDA"}));
  Functions functions;
  const bool whole =
      loaded.find(functions.abi, "pitcrew_check_abi") && loaded.find(functions.count, "pitcrew_check_count") &&
      loaded.find(functions.device, "pitcrew_check_device") && loaded.find(functions.memory, "pitcrew_check_memory") &&
      loaded.find(functions.burn, "pitcrew_check_burn") && loaded.find(functions.host, "pitcrew_check_host") &&
      loaded.find(functions.all_reduce, "pitcrew_check_all_reduce");
  if (!whole || functions.abi() != PITCREW_CHECK_ABI) {
    return Error(Code::kUnsupported, library + " is of another version of pitcrew-check");
  }
  auto backend = std::make_unique<GpuBackend>(functions);
  PITCREW_TRY(backend->find_devices());
  return std::unique_ptr<Backend>(std::move(backend));
}

}  // namespace pitcrew::check
