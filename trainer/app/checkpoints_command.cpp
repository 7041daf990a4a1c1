#include <cstdio>

#include "lib/base/environment.hpp"
#include "lib/base/file.hpp"
#include "trainer/app/commands.hpp"
#include "trainer/checkpoint/inspection.hpp"

namespace pitcrew::trainer {

int run_checkpoints(const CheckpointsOptions& options) {
  const auto found = inspect_checkpoints(posix_file_system(), options.path, options.name, options.verify);
  if (!found) {
    std::fprintf(stderr, "pitcrew-train checkpoints: %s\n", found.error().message.c_str());
    return exit_code::kBadData;
  }
  std::printf("%s\n", found->document.dump().c_str());
  return found->intact ? exit_code::kDone : exit_code::kBadData;
}

}  // namespace pitcrew::trainer
