#pragma once

#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace pitcrew::cli {

// Names that only the cluster knows, of "JOB" or "NODE".
using NamesOf = std::function<std::vector<std::string>(const std::string& kind)>;

// What may follow: `words` are those after the program's name, the last of them being typed (perhaps empty).
// Subcommands, flags, a flag's words, and what positionals name. Sorted; files are the shell's business.
std::vector<std::string> complete(const CLI::App& app, const std::vector<std::string>& words, const NamesOf& names);

// The script that a shell sources; "" where the shell isn't known.
std::string completion_script(const std::string& shell);

}  // namespace pitcrew::cli
