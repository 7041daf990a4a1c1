#include "trainer/comm/nccl/library.hpp"

#include <cstdlib>

#include <dlfcn.h>

namespace pitcrew::trainer::nccl {
namespace {

constexpr const char* kRemedy =
    "; install NCCL 2.18.1 or newer (the wheel nvidia-nccl-cu13, or the distribution's libnccl2), name its file in "
    "PITCREW_NCCL_LIBRARY, or set comm.backend: tcp";

std::string library_name(const std::string& asked) {
  if (!asked.empty()) return asked;
  const char* named = std::getenv("PITCREW_NCCL_LIBRARY");
  return named != nullptr && *named != '\0' ? named : "libnccl.so.2";
}

}  // namespace

std::string version_text(int version) {
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

Result<std::shared_ptr<const Api>> load(const std::string& library) {
  const std::string name = library_name(library);
  void* handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return Error(Code::kNotFound, std::string("load NCCL: ") + dlerror() + kRemedy);
  auto api = std::make_shared<Api>();
  std::string missing;
  const auto find = [&](auto& function, const char* symbol) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, symbol));
    if (function == nullptr) missing += (missing.empty() ? "" : ", ") + std::string(symbol);
  };
  find(api->GetVersion, "ncclGetVersion");
  if (api->GetVersion != nullptr) {
    if (api->GetVersion(&api->version) != kSuccess)
      return Error(Code::kUnsupported, "load NCCL: " + name + " does not tell its version" + kRemedy);
    if (api->version < kOldest) {
      return Error(Code::kUnsupported, "load NCCL: " + name + " is version " + version_text(api->version) + kRemedy);
    }
  }
  find(api->GetErrorString, "ncclGetErrorString");
  find(api->GetLastError, "ncclGetLastError");
  find(api->GetUniqueId, "ncclGetUniqueId");
  find(api->CommInitRankConfig, "ncclCommInitRankConfig");
  find(api->CommFinalize, "ncclCommFinalize");
  find(api->CommDestroy, "ncclCommDestroy");
  find(api->CommAbort, "ncclCommAbort");
  find(api->CommGetAsyncError, "ncclCommGetAsyncError");
  find(api->GroupStart, "ncclGroupStart");
  find(api->GroupEnd, "ncclGroupEnd");
  find(api->Send, "ncclSend");
  find(api->Recv, "ncclRecv");
  find(api->AllGather, "ncclAllGather");
  find(api->Broadcast, "ncclBroadcast");
  find(api->AllReduce, "ncclAllReduce");
  find(api->ReduceScatter, "ncclReduceScatter");
  if (!missing.empty()) return Error(Code::kNotFound, "load NCCL: " + name + " has no " + missing + kRemedy);
  return std::shared_ptr<const Api>(std::move(api));
}

}  // namespace pitcrew::trainer::nccl
