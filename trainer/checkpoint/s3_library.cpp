#include "lib/base/plugin.hpp"
#include "lib/base/version.hpp"
#include "trainer/checkpoint/s3/library.hpp"

namespace pitcrew::trainer::s3 {

std::string interface_name() { return version() + "/1"; }

Result<std::unique_ptr<Storage>> open(const std::string& path) {
  const auto function = load_symbol("libpitcrew_s3.so", kOpenSymbol);
  if (!function) {
    return Error(
        Code::kUnsupported,
        "checkpoint path " + path + ": " + function.error().message +
            "; put libpitcrew_s3.so beside this program (it is built where libcurl4-openssl-dev and libssl-dev "
            "are installed, and needs libcurl4 to run), or give a folder that all replicas mount");
  }
  std::optional<Result<std::unique_ptr<Storage>>> opened;
  reinterpret_cast<OpenFunction>(*function)(interface_name().c_str(), &path, &opened);
  PITCREW_INVARIANT(opened.has_value(), "the library answers");
  return *std::move(opened);
}

}  // namespace pitcrew::trainer::s3
