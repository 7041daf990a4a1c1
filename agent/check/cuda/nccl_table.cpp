#include "agent/check/cuda/nccl_table.hpp"

#include <optional>

#include <dlfcn.h>

namespace pitcrew::check {
namespace {

std::optional<NcclTable> load() {
  void* handle = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return std::nullopt;
  NcclTable table;
  bool whole = true;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name));
    whole = whole && function != nullptr;
  };
  find(table.init_all, "ncclCommInitAll");
  find(table.destroy, "ncclCommDestroy");
  find(table.group_start, "ncclGroupStart");
  find(table.group_end, "ncclGroupEnd");
  find(table.all_reduce, "ncclAllReduce");
  find(table.error_string, "ncclGetErrorString");
  if (!whole) return std::nullopt;
  return table;
}

}  // namespace

const NcclTable* load_nccl() {
  static const std::optional<NcclTable> table = load();
  return table ? &*table : nullptr;
}

}  // namespace pitcrew::check
