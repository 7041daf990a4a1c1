#include "trainer/cuda/library.hpp"

#include <filesystem>
#include <vector>

#include <dlfcn.h>

#include "lib/base/version.hpp"

namespace pitcrew::trainer::cuda {

namespace {

constexpr const char* kLibrary = "libpitcrew_cuda.so";

// Beside the program, in its ../lib, then where the system looks.
std::vector<std::string> places() {
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return {kLibrary};
  const auto folder = program.parent_path();
  return {(folder / kLibrary).string(), (folder.parent_path() / "lib" / kLibrary).string(), kLibrary};
}

Result<OpenFunction> load() {
  std::string tried;
  for (const std::string& place : places()) {
    if (place.find('/') != std::string::npos && !std::filesystem::exists(place)) continue;
    void* library = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      tried += std::string("; ") + dlerror();
      continue;
    }
    void* symbol = dlsym(library, kOpenSymbol);
    if (symbol != nullptr) return reinterpret_cast<OpenFunction>(symbol);
    tried += "; " + place + " is not of pitcrew-train";
  }
  return Error(Code::kNotFound,
               std::string("load ") + kLibrary + tried +
                   "; build it with -DPITCREW_CUDA=ON and put it beside pitcrew-train, or set device: cpu");
}

}  // namespace

std::string interface_name() { return version() + "/1"; }

Result<Compute> open(const Settings& settings) {
  PITCREW_ASSIGN(const OpenFunction function, load());
  std::optional<Result<Compute>> opened;
  function(interface_name().c_str(), &settings, &opened);
  PITCREW_INVARIANT(opened.has_value(), "the library answers");
  return *std::move(opened);
}

Status problems(const ModelConfig& model) {
  std::string text;
  const auto problem = [&](const std::string& what) { text += (text.empty() ? "" : "; ") + what; };
  if (model.head_width() % 8 != 0 || model.head_width() > 128) {
    problem("a head is " + std::to_string(model.head_width()) +
            " wide, but attention on a GPU has multiples of 8 up to 128: change model.heads or model.headWidth");
  }
  // A row of sums for weights, and for biases where there are some, lies in a block's shared memory.
  const uint32_t limit = model.kind == ModelKind::kGpt2 ? 28672 : 57344;
  if (model.width > limit) {
    problem("model.width " + std::to_string(model.width) + " is above " + std::to_string(limit) +
            ", the widest norm on a GPU");
  }
  if (text.empty()) return {};
  return Error(Code::kInvalidArgument, text + "; or set device: cpu");
}

}  // namespace pitcrew::trainer::cuda
