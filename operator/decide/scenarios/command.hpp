#pragma once

#include <map>
#include <string>
#include <vector>

namespace pitcrew::control {

// One command of a scenario file: its words, "name=value" apart.
struct Command {
  std::vector<std::string> words;
  std::map<std::string, std::string> settings;
};
Command parse_command(const std::string& text);

}  // namespace pitcrew::control
