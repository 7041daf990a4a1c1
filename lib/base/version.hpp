#pragma once

#include <string>

namespace pitcrew {

// "0.1.0 (commit 1a2b3c4d5e6f)": what every program prints for --version.
std::string version();

// "0.1.0": the tag of the images of this release.
std::string release();

}  // namespace pitcrew
