#include "trainer/cuda/cudnn/library.hpp"

#include <cstdlib>
#include <filesystem>

#include <dlfcn.h>

#include "trainer/kernels/attention_engine.hpp"

namespace pitcrew::trainer::cudnn {
namespace {

std::string remedy() {
  return "; install cuDNN " + cudnn_version_text(kOldest) +
         " or newer for CUDA 13 (the wheels nvidia-cudnn-cu13 and nvidia-cuda-nvrtc), name its libcudnn.so.9 in "
         "PITCREW_CUDNN_LIBRARY, or set attention: own";
}

std::string library_name(const std::string& asked) {
  if (!asked.empty()) return asked;
  const char* named = std::getenv("PITCREW_CUDNN_LIBRARY");
  return named != nullptr && *named != '\0' ? named : "libcudnn.so.9";
}

// Kernels of attention are compiled when a graph is built, and cuDNN ends the process where it finds no compiler: it is
// looked for where wheels and distributions put it, and loaded first.
Status load_compiler(void* cudnn) {
  constexpr const char* kCompiler = "libnvrtc.so.13";
  std::string tried;
  Dl_info info{};
  if (dladdr(dlsym(cudnn, "cudnnGetVersion"), &info) != 0 && info.dli_fname != nullptr) {
    const auto folder = std::filesystem::path(info.dli_fname).parent_path();
    for (const auto& place : {folder / kCompiler, folder / "../../cu13/lib" / kCompiler}) {
      std::error_code error;
      if (!std::filesystem::exists(place, error)) continue;
      if (dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL) != nullptr) return {};
      tried += std::string("; ") + dlerror();
    }
  }
  if (dlopen(kCompiler, RTLD_NOW | RTLD_LOCAL) != nullptr) return {};
  return Error(Code::kNotFound, std::string("load cuDNN's compiler: ") + dlerror() + tried + remedy());
}

}  // namespace

Result<Library> load(const std::string& asked) {
  const std::string name = library_name(asked);
  Library library;
  library.handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library.handle == nullptr) return Error(Code::kNotFound, std::string("load cuDNN: ") + dlerror() + remedy());
  const auto version = reinterpret_cast<size_t (*)()>(dlsym(library.handle, "cudnnGetVersion"));
  if (version == nullptr || dlsym(library.handle, "cudnnBackendExecute") == nullptr)
    return Error(Code::kNotFound, "load cuDNN: " + name + " is not cuDNN" + remedy());
  library.version = version();
  if (library.version < kOldest) {
    return Error(Code::kUnsupported,
                 "load cuDNN: " + name + " is version " + cudnn_version_text(library.version) + remedy());
  }
  PITCREW_TRY(load_compiler(library.handle));
  return library;
}

}  // namespace pitcrew::trainer::cudnn
