#pragma once

#include <ostream>

#include "agent/act/take_back.hpp"
#include "lib/net/asio_loop.hpp"

namespace pitcrew::agent {

// Takes back what agents have put on nodes, and tells people what was done, and how to remove what stays. Blocks.
// Returns the caller's exit code: 0, or kExitFailed where a node is named that could not be written.
int take_back_and_tell(net::AsioLoop& loop, kube::Transport& transport, uint64_t seed, TakeBackSettings settings,
                       const Logger& log, std::ostream& out);

}  // namespace pitcrew::agent
