#include "lib/base/version.hpp"

namespace pitcrew {

std::string version() { return PITCREW_VERSION " (commit " PITCREW_COMMIT ")"; }
std::string release() { return PITCREW_VERSION; }

}  // namespace pitcrew
