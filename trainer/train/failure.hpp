#pragma once

#include <optional>

#include "lib/base/result.hpp"

namespace pitcrew::trainer {

// An error with the exit code that it means for this process.
struct Failure {
  Error error;
  int exit_code;
};
// Done, stopped, or why not.
using End = std::optional<Failure>;

}  // namespace pitcrew::trainer
