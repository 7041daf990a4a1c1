#include "lib/base/dynamic_library.hpp"
#include "lib/base/version.hpp"
#include "trainer/checkpoint/s3/library.hpp"

namespace pitcrew::trainer::s3 {

std::string interface_name() { return version() + "/1"; }

Result<std::unique_ptr<Storage>> open(const std::string& path) {
  constexpr const char* kLibrary = "libpitcrew_s3.so";
  const auto library = DynamicLibrary::load(
      {.what = kLibrary,
       .places = beside_program(kLibrary),
       .remedy = "put libpitcrew_s3.so beside this program (it is built where libcurl4-openssl-dev and libssl-dev are "
                 "installed, and needs libcurl4 to run), or give a folder that all replicas mount",
       .symbol = kOpenSymbol});
  if (!library) return Error(Code::kUnsupported, "checkpoint path " + path + ": " + library.error().message);
  std::optional<Result<std::unique_ptr<Storage>>> opened;
  reinterpret_cast<OpenFunction>(library->symbol(kOpenSymbol))(interface_name().c_str(), &path, &opened);
  PITCREW_INVARIANT(opened.has_value(), "the library answers");
  return *std::move(opened);
}

}  // namespace pitcrew::trainer::s3
