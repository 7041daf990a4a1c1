#pragma once

#include <memory>
#include <string>

#include "lib/base/result.hpp"
#include "trainer/comm/nccl/abi.hpp"

namespace pitcrew::trainer::nccl {

// The oldest NCCL that is used: the first whose non-blocking communicators also cover groups of sends and receives.
constexpr int kOldest = version_code(2, 18, 1);

// Loads NCCL: the file that `library` names, else PITCREW_NCCL_LIBRARY, else libnccl.so.2 from where the system looks.
// Nothing is linked with it. It stays loaded. kNotFound: not there, or not NCCL; kUnsupported: too old; each with the
// remedy.
Result<std::shared_ptr<const Api>> load(const std::string& library = "");

// "2.28.9" of 22809.
std::string version_text(int version);

}  // namespace pitcrew::trainer::nccl
