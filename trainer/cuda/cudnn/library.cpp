#include "trainer/cuda/cudnn/library.hpp"

#include <filesystem>

#include "lib/base/dynamic_library.hpp"
#include "trainer/kernels/attention_engine.hpp"

namespace pitcrew::trainer::cudnn {
namespace {

std::string remedy() {
  return "install cuDNN " + cudnn_version_text(kOldest) +
         " or newer for CUDA 13 (the wheels nvidia-cudnn-cu13 and nvidia-cuda-nvrtc), name its libcudnn.so.9 in "
         "PITCREW_CUDNN_LIBRARY, or set attention: own";
}

// Kernels of attention are compiled when a graph is built, and cuDNN ends the process where it finds no compiler: it is
// looked for where wheels and distributions put it, and loaded first.
Status load_compiler(const DynamicLibrary& cudnn) {
  constexpr const char* kCompiler = "libnvrtc.so.13";
  std::vector<std::string> places;
  if (const std::string file = cudnn.file_of("cudnnGetVersion"); !file.empty()) {
    const auto folder = std::filesystem::path(file).parent_path();
    places = {(folder / kCompiler).string(), (folder / "../../cu13/lib" / kCompiler).string()};
  }
  places.emplace_back(kCompiler);
  PITCREW_TRY(DynamicLibrary::load({.what = "cuDNN's compiler", .places = std::move(places), .remedy = remedy()}));
  return {};
}

}  // namespace

Result<Library> load(const std::string& asked) {
  PITCREW_ASSIGN(const DynamicLibrary found,
                 DynamicLibrary::load({.what = "cuDNN",
                                       .places = {library_name(asked, "PITCREW_CUDNN_LIBRARY", "libcudnn.so.9")},
                                       .remedy = remedy()}));
  size_t (*version)() = nullptr;
  if (!found.find(version, "cudnnGetVersion") || found.symbol("cudnnBackendExecute") == nullptr)
    return found.unfit(Code::kNotFound, "is not cuDNN");
  Library library;
  library.handle = found.handle();
  library.version = version();
  if (library.version < kOldest)
    return found.unfit(Code::kUnsupported, "is version " + cudnn_version_text(library.version));
  PITCREW_TRY(load_compiler(found));
  return library;
}

}  // namespace pitcrew::trainer::cudnn
