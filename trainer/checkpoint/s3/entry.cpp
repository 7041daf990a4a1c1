#include <random>

#include "lib/base/config_file.hpp"
#include "trainer/checkpoint/s3/library.hpp"
#include "trainer/checkpoint/s3/s3_storage.hpp"

extern "C" __attribute__((visibility("default"))) void pitcrew_s3_open(
    const char* interface, const std::string* path,
    std::optional<pitcrew::Result<std::unique_ptr<pitcrew::trainer::Storage>>>* opened) {
  using namespace pitcrew;
  // Nothing but the name is looked at before it is known to be ours.
  if (interface != trainer::s3::interface_name()) {
    opened->emplace(Error(Code::kUnsupported, "libpitcrew_s3.so is of build " + trainer::s3::interface_name() +
                                                  ", the program of build " + interface + "; install both together"));
    return;
  }
  static const RealClock kClock;
  trainer::s3::Client::Settings settings;
  settings.seed = std::random_device{}();
  opened->emplace(trainer::s3::open_s3_storage(
      *path, [](const char* name) { return environment_or(name, ""); }, kClock, settings));
}
