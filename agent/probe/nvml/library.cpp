#include "agent/probe/nvml/library.hpp"

#include <cstdio>

namespace pitcrew::agent::nvml {
namespace {

std::string_view name_of(int code) {
  switch (code) {
    case abi::kUninitialized:
      return "NVML is not initialized";
    case abi::kInvalidArgument:
      return "an argument is not valid";
    case abi::kNotSupported:
      return "not supported by this GPU";
    case abi::kNoPermission:
      return "no permission";
    case abi::kNotFound:
      return "not found";
    case abi::kDriverNotLoaded:
      return "the NVIDIA driver is not loaded";
    case abi::kTimeout:
      return "time-out in the driver";
    case abi::kFunctionNotFound:
      return "this driver's library lacks the function";
    case abi::kGpuIsLost:
      return "the GPU is lost";
    case abi::kResetRequired:
      return "the GPU needs a reset";
    case abi::kLibRmVersionMismatch:
      return "library and driver are of different versions (the driver is being replaced?)";
    case abi::kNoData:
      return "no data";
    default:
      return "error";
  }
}

Code kind_of(int code) {
  switch (code) {
    case abi::kNotSupported:
    case abi::kFunctionNotFound:
      return Code::kUnsupported;
    case abi::kNoPermission:
      return Code::kForbidden;
    case abi::kNotFound:
      return Code::kNotFound;
    case abi::kGpuIsLost:
      return Code::kGone;
    case abi::kTimeout:
      return Code::kDeadlineExceeded;
    case abi::kUninitialized:
    case abi::kDriverNotLoaded:
    case abi::kLibRmVersionMismatch:
      return Code::kUnavailable;
    default:
      return Code::kInternal;
  }
}

}  // namespace

Error error_of(std::string_view function, int code) {
  return Error(kind_of(code),
               std::string(function) + ": " + std::string(name_of(code)) + " (NVML " + std::to_string(code) + ")");
}

Result<std::shared_ptr<const Library>> Library::open(const std::string& path) {
  PITCREW_ASSIGN(
      DynamicLibrary loaded,
      DynamicLibrary::load({.what = "NVML", .places = {path}, .remedy = "nodes without NVIDIA GPUs have none"}));
  std::shared_ptr<Library> library(new Library(std::move(loaded)));
#define PITCREW_NVML_LOAD(symbol, name, parameters) library->library_.find(library->functions_.name, #symbol);
  PITCREW_NVML_FUNCTIONS(PITCREW_NVML_LOAD)
#undef PITCREW_NVML_LOAD
  if (const int code = library->call(&Functions::init); code != abi::kSuccess) return error_of("nvmlInit_v2", code);
  library->initialized_ = true;
  return std::shared_ptr<const Library>(std::move(library));
}

Library::~Library() {
  if (initialized_) call(&Functions::shutdown);
  library_.unload();  // a driver may be replaced
}

Result<std::vector<Gpu>> list_gpus(const Library& library) {
  using F = Library::Functions;
  unsigned count = 0;
  if (const int code = library.call(&F::count, &count); code != abi::kSuccess) {
    return error_of("nvmlDeviceGetCount_v2", code);
  }
  std::vector<Gpu> gpus;
  for (unsigned index = 0; index < count && index < 256; ++index) {
    Gpu gpu;
    gpu.index = index;
    if (const int code = library.call(&F::handle, index, &gpu.device); code != abi::kSuccess) {
      if (code != abi::kGpuIsLost) return error_of("nvmlDeviceGetHandleByIndex_v2", code);
      gpu.lost = true;
      gpus.push_back(std::move(gpu));
      continue;
    }
    char text[96];
    const int uuid = library.call(&F::uuid, gpu.device, text, unsigned{sizeof text});
    if (uuid == abi::kSuccess) gpu.uuid = text;
    if (uuid == abi::kGpuIsLost) gpu.lost = true;
    if (library.call(&F::serial, gpu.device, text, unsigned{sizeof text}) == abi::kSuccess) gpu.serial = text;
    if (library.call(&F::name, gpu.device, text, unsigned{sizeof text}) == abi::kSuccess) gpu.name = text;
    abi::PciInfo pci{};
    if (library.call(&F::pci, gpu.device, &pci) == abi::kSuccess) {
      std::snprintf(text, sizeof text, "%04x:%02x:%02x.0", pci.domain & 0xffff, pci.bus & 0xff, pci.device & 0x1f);
      gpu.pci = text;
    }
    gpus.push_back(std::move(gpu));
  }
  return gpus;
}

Result<std::string> driver_version(const Library& library) {
  char text[96];
  if (const int code = library.call(&Library::Functions::driver_version, text, unsigned{sizeof text});
      code != abi::kSuccess) {
    return error_of("nvmlSystemGetDriverVersion", code);
  }
  return std::string(text);
}

}  // namespace pitcrew::agent::nvml
