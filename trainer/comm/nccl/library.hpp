#pragma once

#include <memory>
#include <string>

#include "lib/nccl/library.hpp"

namespace pitcrew::trainer::nccl {

// NCCL's own names are here beside what this folder adds to them.
using namespace pitcrew::nccl;

// The oldest NCCL that is used: the first whose non-blocking communicators also cover groups of sends and receives.
constexpr int kOldest = version_code(2, 18, 1);

// Loads NCCL with all that communicators need; `library` and errors are those of lib/nccl/library.hpp.
Result<std::shared_ptr<const Api>> load(const std::string& library = "");

}  // namespace pitcrew::trainer::nccl
