#pragma once

#include <string>

#include "lib/nccl/abi.hpp"

namespace pitcrew::check {

// NCCL with what an all-reduce within one process needs, of any version; the rest of the check works without it. Null:
// there is none, and `why` says what to do. Loaded once; any thread.
const nccl::Api* load_nccl(std::string& why);

}  // namespace pitcrew::check
