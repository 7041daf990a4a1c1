#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "lib/base/log.hpp"
#include "trainer/train/rank_environment.hpp"

namespace pitcrew::trainer {

// What a rank says. Plain: lines for people on standard output, what goes wrong on standard error. JSON: an object a
// line on standard error with time, level, message, program, namespace, job, epoch, rank, and the step that a message
// is about, so that a log system can index them. Thread-safe; a value.
class Messages {
 public:
  Messages(LogFormat format, const RankEnvironment& environment);

  const Logger& log() const { return log_; }
  void print(const std::string& line) const;
  void complain(const std::string& message) const;

 private:
  bool json_;
  uint32_t rank_;
  Logger log_;
};

// The step a message is about: the number behind the first word "step"; nothing where there is none.
std::optional<uint64_t> step_of(std::string_view message);

}  // namespace pitcrew::trainer
