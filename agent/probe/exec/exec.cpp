#include "agent/probe/exec/exec.hpp"

#include "agent/probe/host.hpp"
#include "agent/probe/observation_tools.hpp"

namespace pitcrew::agent::exec {

Result<std::vector<Observation>> ExecProbe::look(Instant now) {
  constexpr int kFine = 0, kProblem = 1;
  constexpr size_t kMaxText = 80;  // node-problem-detector's default for a message
  PITCREW_ASSIGN(const Outcome outcome, run(program_));
  const std::string said = printable(outcome.output.substr(0, outcome.output.find('\n')), kMaxText);
  if (outcome.late) {
    return Error(Code::kDeadlineExceeded,
                 program_.command[0] + " did not end within " + pitcrew::to_string(program_.timeout));
  }
  if (outcome.code != kFine && outcome.code != kProblem) {
    return Error(Code::kUnavailable, program_.command[0] + " ended with code " + std::to_string(outcome.code) +
                                         ", which says that it could not tell" + (said.empty() ? "" : ": " + said));
  }
  Observation reading = make_reading("exec." + program_.name, "", now);
  reading.values["problem"] = outcome.code == kProblem ? 1.0 : 0.0;
  reading.text = said;
  return std::vector<Observation>{std::move(reading)};
}

}  // namespace pitcrew::agent::exec
