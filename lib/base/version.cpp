#include "lib/base/version.hpp"

namespace pitcrew {

std::string version() { return PITCREW_VERSION " (commit " PITCREW_COMMIT ")"; }

}  // namespace pitcrew
