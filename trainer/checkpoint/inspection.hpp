#pragma once

#include <string>

#include "lib/base/file.hpp"
#include "lib/base/json.hpp"

namespace pitcrew::trainer {

struct Inspection {
  Json document;       // {path, checkpoints: [{name, step, claim, bytes, intact, problem}]}, newest first
  bool intact = true;  // all of them
};

// What `checkpoint ls` and `verify` say of a folder of checkpoints. `name` picks one of them ("step-…"); empty: all, or
// with `verify` the newest. With `verify` every byte is read.
Result<Inspection> inspect_checkpoints(FileSystem& files, const std::string& path, const std::string& name,
                                       bool verify);

}  // namespace pitcrew::trainer
