#pragma once

#include <string>
#include <vector>

#include "agent/probe/probe.hpp"

namespace pitcrew::agent::exec {

// A program of the agent's own configuration. A HealthPolicy can name `exec.<name>`; it can never name a program.
struct Program {
  std::string name;                  // a-z, 0-9 and dashes
  std::vector<std::string> command;  // the first is a path from the root
  Duration every = minutes(1);
  Duration timeout = seconds(10);
  std::vector<std::string> environment;  // NAME=value, beside a PATH; all that it gets
  size_t most_output = 4096;             // bytes that are kept
  bool operator==(const Program&) const = default;

  Status validate() const;
};

// What a program that has ended said.
struct Outcome {
  int code = 0;        // of its exit; 128 and the signal's number where one ended it
  bool late = false;   // it was ended because its time was up
  std::string output;  // its standard output, as far as it is kept
};
// Runs it to its end or its time-out, then ends whatever it has started in its process group. Blocks that long.
Result<Outcome> run(const Program& program);

// Runs one program by the contract of node-problem-detector's custom plugins: exit code 0 is fine, 1 is a problem, and
// what it has printed is the reason; anything else, or no end in time, means that the program itself could not tell,
// and is the probe's failure. Gives `exec.<name>` with `problem`.
class ExecProbe final : public Probe {
 public:
  explicit ExecProbe(Program program) : program_(std::move(program)) {}
  Result<std::vector<Observation>> look(Instant now) override;

 private:
  Program program_;
};

}  // namespace pitcrew::agent::exec
