#pragma once

#include <string>

#include "lib/base/result.hpp"

namespace pitcrew::launcher {

// Copies the running program to `destination` (a file, or a folder that it goes into), executable for everybody, whole
// or not at all: what the init container does.
Status copy_self(const std::string& destination);

}  // namespace pitcrew::launcher
