#include "lib/nccl/library.hpp"

#include <algorithm>
#include <string_view>

#include "lib/base/dynamic_library.hpp"

namespace pitcrew::nccl {
namespace {

std::string remedy(const Demand& demand) {
  const std::string newer = demand.oldest == 0 ? "" : " " + version_text(demand.oldest) + " or newer";
  const std::string name = "name its file in PITCREW_NCCL_LIBRARY";
  return "install NCCL" + newer + " (the wheel nvidia-nccl-cu13, or the distribution's libnccl2)" +
         (demand.otherwise.empty() ? ", or " + name : ", " + name + ", or " + demand.otherwise);
}

// The demanded functions that the library lacks, in words.
std::string find_functions(const DynamicLibrary& library, const Demand& demand, Api& api) {
  std::string missing;
  const auto find = [&](auto& function, const char* symbol) {
    const auto demanded = [symbol](const char* name) { return std::string_view(name) == symbol; };
    if (library.find(function, symbol) || std::none_of(demand.functions.begin(), demand.functions.end(), demanded))
      return;
    missing += (missing.empty() ? "" : ", ") + std::string(symbol);
  };
#define PITCREW_NCCL_FIND(result, name, parameters) find(api.name, "nccl" #name);
  PITCREW_NCCL_FUNCTIONS(PITCREW_NCCL_FIND)
#undef PITCREW_NCCL_FIND
  return missing;
}

}  // namespace

std::string version_text(int version) {
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

Result<std::shared_ptr<const Api>> load(const Demand& demand, const std::string& library) {
  PITCREW_ASSIGN(const DynamicLibrary loaded,
                 DynamicLibrary::load({.what = "NCCL",
                                       .places = {library_name(library, "PITCREW_NCCL_LIBRARY", "libnccl.so.2")},
                                       .remedy = remedy(demand)}));
  auto api = std::make_shared<Api>();
  const std::string missing = find_functions(loaded, demand, *api);
  const bool told = api->GetVersion != nullptr && api->GetVersion(&api->version) == kSuccess;
  // An old one is said to be old, whatever it lacks.
  if (told && api->version < demand.oldest)
    return loaded.unfit(Code::kUnsupported, "is version " + version_text(api->version));
  if (!missing.empty()) return loaded.unfit(Code::kNotFound, "has no " + missing);
  if (!told && demand.oldest > 0) return loaded.unfit(Code::kUnsupported, "does not tell its version");
  return std::shared_ptr<const Api>(std::move(api));
}

}  // namespace pitcrew::nccl
