#include "lib/base/plugin.hpp"

#include <filesystem>
#include <vector>

#include <dlfcn.h>

namespace pitcrew {
namespace {

std::vector<std::string> places(const std::string& library) {
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return {library};
  const auto folder = program.parent_path();
  return {(folder / library).string(), (folder.parent_path() / "lib" / library).string(), library};
}

}  // namespace

Result<void*> load_symbol(const std::string& library, const char* symbol) {
  std::string tried;
  for (const std::string& place : places(library)) {
    if (place.find('/') != std::string::npos && !std::filesystem::exists(place)) continue;
    void* handle = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      tried += std::string("; ") + dlerror();
      continue;
    }
    if (void* found = dlsym(handle, symbol); found != nullptr) return found;
    tried += "; " + place + " is not Pitcrew's";
  }
  return Error(Code::kNotFound, "load " + library + tried);
}

}  // namespace pitcrew
