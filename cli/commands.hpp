#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace pitcrew::cli {

// Adds the commands that ask a cluster: status, timeline, diagnose, logs, stacks, checkpoint, nodes, check, top; and
// completion. Sets `code` when one of them was called.
void add_cluster_commands(CLI::App& app, int& code);

// What shells ask while somebody types: prints what may come in the place of the last word. Returns the exit code.
int print_completions(const CLI::App& app, const std::vector<std::string>& typed);

}  // namespace pitcrew::cli
