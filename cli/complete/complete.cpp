#include "cli/complete/complete.hpp"

#include <algorithm>

#include <CLI/CLI.hpp>

namespace pitcrew::cli {
namespace {

constexpr char kBash[] = R"(# bash completion of pitcrew: source <(pitcrew completion bash)
_pitcrew() {
  mapfile -t COMPREPLY < <("${COMP_WORDS[0]}" complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o default -F _pitcrew pitcrew kubectl-pitcrew
)";

constexpr char kZsh[] = R"(#compdef pitcrew kubectl-pitcrew
# zsh completion of pitcrew: source <(pitcrew completion zsh)
_pitcrew() {
  local -a candidates
  candidates=("${(@f)$("${words[1]}" complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  candidates=(${candidates:#})
  if (( ${#candidates} )); then compadd -a candidates; else _files; fi
}
compdef _pitcrew pitcrew kubectl-pitcrew
)";

const CLI::App* child(const CLI::App& app, const std::string& name) {
  for (const CLI::App* one : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (one->get_name() == name) return one;
  }
  return nullptr;
}

const CLI::Option* flag(const CLI::App& app, const std::string& name) {
  for (const CLI::Option* option : app.get_options()) {
    if (option->check_name(name)) return option;
  }
  return nullptr;
}

bool takes_value(const CLI::Option& option) { return option.get_items_expected_max() > 0; }

// A flag's words stand in the name of its type: "text|wide|json|yaml".
std::vector<std::string> words_of(const CLI::Option& option) {
  std::vector<std::string> words;
  std::string rest = option.get_type_name();
  rest.erase(std::min(rest.find(':'), rest.size()));  // what CLI11's validators add
  if (rest.find('|') == std::string::npos) return words;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('|'), rest.size());
    words.push_back(rest.substr(0, end));
    rest.erase(0, std::min(end + 1, rest.size()));
  }
  return words;
}

}  // namespace

std::vector<std::string> complete(const CLI::App& app, const std::vector<std::string>& words, const NamesOf& names) {
  const CLI::App* at = &app;
  size_t positional = 0;
  const CLI::Option* pending = nullptr;  // a flag that waits for its value
  const std::string typed = words.empty() ? "" : words.back();
  for (size_t i = 0; i + 1 < words.size(); ++i) {
    const std::string& word = words[i];
    if (pending != nullptr) {
      pending = nullptr;
    } else if (word.starts_with("-")) {
      const CLI::Option* option = flag(*at, word);
      if (option != nullptr && takes_value(*option) && word.find('=') == std::string::npos) pending = option;
    } else if (const CLI::App* next = child(*at, word)) {
      at = next;
      positional = 0;
    } else {
      ++positional;
    }
  }
  std::vector<std::string> candidates;
  if (pending != nullptr) {
    candidates = words_of(*pending);
  } else if (typed.starts_with("-")) {
    for (const CLI::Option* option : at->get_options()) {
      for (const std::string& name : option->get_lnames()) candidates.push_back("--" + name);
    }
  } else {
    for (const CLI::App* one : at->get_subcommands([](const CLI::App*) { return true; })) {
      if (!one->get_group().empty()) candidates.push_back(one->get_name());
    }
    std::vector<const CLI::Option*> positionals;
    for (const CLI::Option* option : at->get_options()) {
      if (option->get_positional()) positionals.push_back(option);
    }
    if (positional < positionals.size()) {
      const std::string kind = positionals[positional]->get_type_name();
      if (kind == "JOB" || kind == "NODE") {
        for (std::string& name : names(kind)) candidates.push_back(std::move(name));
      }
      for (std::string& word : words_of(*positionals[positional])) candidates.push_back(std::move(word));
    }
  }
  std::erase_if(candidates, [&](const std::string& one) { return !one.starts_with(typed); });
  std::sort(candidates.begin(), candidates.end());
  candidates.erase(std::unique(candidates.begin(), candidates.end()), candidates.end());
  return candidates;
}

std::string completion_script(const std::string& shell) {
  if (shell == "bash") return kBash;
  if (shell == "zsh") return kZsh;
  return "";
}

}  // namespace pitcrew::cli
