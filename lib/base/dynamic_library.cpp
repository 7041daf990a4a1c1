#include "lib/base/dynamic_library.hpp"

#include <cstdlib>
#include <filesystem>

#include <dlfcn.h>

namespace pitcrew {
namespace {

std::string why_not() {
  const char* why = dlerror();
  return why == nullptr ? "unknown error" : why;
}

}  // namespace

Result<DynamicLibrary> DynamicLibrary::load(Wanted wanted) {
  std::string tried;
  const auto failed = [&](const std::string& why) { tried += (tried.empty() ? ": " : "; ") + why; };
  for (size_t i = 0; i < wanted.places.size(); ++i) {
    const std::string& place = wanted.places[i];
    std::error_code error;
    const bool last = i + 1 == wanted.places.size();
    if (!last && place.find('/') != std::string::npos && !std::filesystem::exists(place, error)) continue;
    void* handle = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      failed(why_not());
    } else if (!wanted.symbol.empty() && dlsym(handle, wanted.symbol.c_str()) == nullptr) {
      failed(place + " has no " + wanted.symbol);
    } else {
      DynamicLibrary library;
      library.place_ = place;
      library.handle_ = handle;
      library.wanted_ = std::move(wanted);
      return library;
    }
  }
  return Error(Code::kNotFound, "load " + wanted.what + tried + "; " + wanted.remedy);
}

void* DynamicLibrary::symbol(const char* name) const { return handle_ == nullptr ? nullptr : dlsym(handle_, name); }

std::string DynamicLibrary::file_of(const char* name) const {
  Dl_info info{};
  return dladdr(symbol(name), &info) != 0 && info.dli_fname != nullptr ? info.dli_fname : "";
}

Error DynamicLibrary::unfit(Code code, const std::string& why) const {
  return Error(code, "load " + wanted_.what + ": " + place_ + " " + why + "; " + wanted_.remedy);
}

void DynamicLibrary::unload() {
  if (handle_ != nullptr) dlclose(handle_);
  handle_ = nullptr;
}

std::vector<std::string> beside_program(const std::string& library) {
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return {library};
  const auto folder = program.parent_path();
  return {(folder / library).string(), (folder.parent_path() / "lib" / library).string(), library};
}

std::string library_name(const std::string& asked, const char* variable, const char* usual) {
  if (!asked.empty()) return asked;
  const char* named = std::getenv(variable);
  return named != nullptr && *named != '\0' ? named : usual;
}

}  // namespace pitcrew
