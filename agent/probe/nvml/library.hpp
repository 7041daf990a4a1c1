#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "agent/probe/nvml/abi.hpp"
#include "lib/base/dynamic_library.hpp"
#include "lib/base/result.hpp"

namespace pitcrew::agent::nvml {

// NVIDIA's management library, loaded where it is and initialized. Thread-safe as NVML is: any thread may call any
// function. A function that the library lacks answers kFunctionNotFound, as old drivers' do.
//
// Shared by the probes; the last of them shuts it down and unloads it.
class Library {
 public:
  ~Library();
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  // kNotFound where there is no library: a node without GPUs, about which nobody complains. kUnavailable where it is
  // there and its driver is not.
  static Result<std::shared_ptr<const Library>> open(const std::string& path = "libnvidia-ml.so.1");

#define PITCREW_NVML_MEMBER(symbol, name, parameters) int(*name) parameters = nullptr;
  struct Functions {
    using Device = abi::Device;
    using PciInfo = abi::PciInfo;
    using Memory = abi::Memory;
    using Utilization = abi::Utilization;
    using ProcessInfo = abi::ProcessInfo;
    using SramStatus = abi::SramStatus;
    using FabricInfo = abi::FabricInfo;
    using EventData = abi::EventData;
    using GpmSupport = abi::GpmSupport;
    using GpmMetrics = abi::GpmMetrics;
    PITCREW_NVML_FUNCTIONS(PITCREW_NVML_MEMBER)
  };
#undef PITCREW_NVML_MEMBER

  // Calls a function by its place: call(&Functions::count, &number).
  template <typename... Parameters, typename... Arguments>
  int call(int (*Functions::*function)(Parameters...), Arguments... arguments) const {
    return functions_.*function == nullptr ? abi::kFunctionNotFound : (functions_.*function)(arguments...);
  }

 private:
  explicit Library(DynamicLibrary library) : library_(std::move(library)) {}

  DynamicLibrary library_;
  bool initialized_ = false;
  Functions functions_;
};

// What a return code says, with the function that gave it; kNotSupported for what this GPU or driver does not have.
Error error_of(std::string_view function, int code);

// One GPU as the library lists it.
struct Gpu {
  unsigned index = 0;
  abi::Device device = nullptr;
  std::string uuid;    // empty where the driver has lost it
  std::string serial;  // of boards that have one
  std::string pci;     // 0000:b9:00.0
  std::string name;
  bool lost = false;
};

// All GPUs; a lost one is among them with what can still be told.
Result<std::vector<Gpu>> list_gpus(const Library& library);
Result<std::string> driver_version(const Library& library);

}  // namespace pitcrew::agent::nvml
