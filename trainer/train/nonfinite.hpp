#pragma once

#include <optional>
#include <string>

#include "lib/base/file.hpp"
#include "lib/base/strong.hpp"

namespace pitcrew::trainer {

// A step whose loss or gradient was not finite, as the run remembers it beside its checkpoints (nonfinite.json), so
// that a later epoch, on other hardware perhaps, knows that it is the second time.
struct NonfiniteStep {
  Step step;
  std::string loss_bits;  // hexadecimal
  std::string gradient_bits;
  bool operator==(const NonfiniteStep&) const = default;
};

// Notes the step; true where the same step had given the same bits in an earlier epoch: then the program or the data
// are at fault, not a machine. Without a folder nothing is remembered.
Result<bool> note_nonfinite(FileSystem& files, const std::string& folder, const NonfiniteStep& step);

}  // namespace pitcrew::trainer
