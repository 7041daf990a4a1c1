#pragma once

#include <string>

#include "lib/base/result.hpp"

namespace pitcrew::trainer {

// Which algorithm each shape of matrix product uses, where a library has several: timed once, then kept with the
// checkpoints, since another algorithm adds in another order. Used by the training thread.
class ProductPlans {
 public:
  virtual ~ProductPlans() = default;
  // While it is on, a shape that is new is timed, several times and over whatever its result lies on: for a step whose
  // results nobody uses. While it is off, a new shape takes the library's first proposal.
  virtual void set_tuning(bool on) = 0;
  // JSON of some kilobytes.
  virtual std::string text() const = 0;
  // Takes over what text() gave before. kUnsupported where it was made with another library or GPU; nothing changes
  // then.
  virtual Status use(const std::string& text) = 0;
};

}  // namespace pitcrew::trainer
