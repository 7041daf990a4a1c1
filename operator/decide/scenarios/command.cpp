#include "operator/decide/scenarios/command.hpp"

namespace pitcrew::control {

Command parse_command(const std::string& text) {
  Command command;
  std::string word;
  bool quoted = false, any = false;
  const auto finish = [&] {
    if (!any) return;
    const size_t equals = word.find('=');
    if (equals != std::string::npos && equals > 0)
      command.settings[word.substr(0, equals)] = word.substr(equals + 1);
    else
      command.words.push_back(word);
    word.clear();
    any = false;
  };
  for (const char c : text) {
    if (c == '"') {
      quoted = !quoted;
      any = true;
    } else if (c == ' ' && !quoted) {
      finish();
    } else {
      word += c;
      any = true;
    }
  }
  finish();
  return command;
}

}  // namespace pitcrew::control
