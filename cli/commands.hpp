#pragma once

namespace CLI {
class App;
}

namespace pitcrew::cli {

// Adds the commands that ask a cluster: status, timeline, diagnose, logs, stacks, checkpoint, nodes, check, top; and
// completion. Sets `code` when one of them was called.
void add_cluster_commands(CLI::App& app, int& code);

}  // namespace pitcrew::cli
