#pragma once

namespace CLI {
class App;
}

namespace pitcrew::cli {

// Adds `pitcrew run` and the two commands that it starts itself (a simulated node, the guard) to the command line. Sets
// `code` when one of them was called: 0 the job succeeded (or was stopped and saved), 1 it failed, 2 bad input, 3 the
// folder is in use, 130 stopped without having saved.
void add_run(CLI::App& app, int& code);

}  // namespace pitcrew::cli
