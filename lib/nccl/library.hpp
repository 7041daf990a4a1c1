#pragma once

#include <memory>
#include <string>
#include <vector>

#include "lib/base/result.hpp"
#include "lib/nccl/abi.hpp"

namespace pitcrew::nccl {

// What a user of NCCL can't do without.
struct Demand {
  int oldest = 0;                      // version_code(); 0: any version
  std::vector<const char*> functions;  // by their whole names: "ncclAllReduce"
  std::string otherwise = {};          // what else helps: "set comm.backend: tcp"
};

// Loads NCCL: the file that `library` names, else PITCREW_NCCL_LIBRARY, else libnccl.so.2 from where the system looks.
// It stays loaded. kNotFound: not there, or without a function that is demanded; kUnsupported: too old; each with the
// remedy.
Result<std::shared_ptr<const Api>> load(const Demand& demand, const std::string& library = "");

// "2.28.9" of 22809.
std::string version_text(int version);

}  // namespace pitcrew::nccl
