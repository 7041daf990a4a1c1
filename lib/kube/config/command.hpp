#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lib/net/asio_loop.hpp"

namespace pitcrew::kube {

struct CommandSettings {
  std::vector<std::string> argv;                         // the first is looked for in PATH
  std::vector<std::pair<std::string, std::string>> env;  // added to the own environment
  Duration timeout = seconds(60);
  size_t max_output = 1024 * 1024;
};

struct CommandResult {
  int exit_code = 0;  // of a signal: 128 + its number
  std::string output;
  std::string errors;  // the end of what was written to stderr
};

// A program that is run to its end beside the loop, without input. Destroying it kills the program and those it
// started in its process group.
class Command {
 public:
  // `done` is called on the loop, never inside this call: an error where the program couldn't be started, ran too long
  // or said too much.
  static std::unique_ptr<Command> run(net::AsioLoop& loop, CommandSettings settings,
                                      std::function<void(Result<CommandResult>)> done);
  virtual ~Command() = default;
};

}  // namespace pitcrew::kube
