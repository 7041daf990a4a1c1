#pragma once

#include <string>

#include "agent/check/suite/expectations.hpp"
#include "lib/api/check_report.hpp"

namespace pitcrew::check {

struct DiskSettings {
  std::string folder;
  uint64_t bytes = uint64_t{1} << 30;  // at most a tenth of what is free
  uint64_t seed = 1;
};

// Writes a file of random bytes into the folder, makes it durable, reads it back past the page cache where the file
// system can, and compares. The file has no name, so that nothing is left behind whatever happens.
api::CheckTest check_disk(const DiskSettings& settings, const Expectations& expected);

}  // namespace pitcrew::check
