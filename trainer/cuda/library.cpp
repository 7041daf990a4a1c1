#include "trainer/cuda/library.hpp"

#include "lib/base/dynamic_library.hpp"
#include "lib/base/version.hpp"

namespace pitcrew::trainer::cuda {

namespace {

constexpr const char* kLibrary = "libpitcrew_cuda.so";

Result<OpenFunction> load() {
  PITCREW_ASSIGN(const DynamicLibrary library,
                 DynamicLibrary::load({.what = kLibrary,
                                       .places = beside_program(kLibrary),
                                       .remedy = "build it with -DPITCREW_CUDA=ON and put it beside pitcrew-train, or "
                                                 "set device: cpu",
                                       .symbol = kOpenSymbol}));
  return reinterpret_cast<OpenFunction>(library.symbol(kOpenSymbol));
}

}  // namespace

std::string interface_name() { return version() + "/4"; }

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
