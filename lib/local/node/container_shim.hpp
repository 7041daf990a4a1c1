#pragma once

#include <string>

#include <sys/types.h>

#include "lib/local/node/container_runtime.hpp"

namespace pitcrew::local {

struct StartedContainer {
  pid_t pid = -1;     // of the container's shim: its exit status is the container's
  std::string error;  // not empty: nothing runs
};

// Starts a container below a small process of its own, its shim: a sub-reaper, so that whatever the container starts
// stays its descendant; it passes SIGTERM, SIGINT, SIGHUP, SIGUSR1 and SIGUSR2 on to the container's first process, and
// when that one ends it kills all that is left and ends the same way. When the caller dies, the shim and the first
// process die. Called by a process with a single thread.
StartedContainer start_container(const ContainerSpec& spec, int close_fd);

}  // namespace pitcrew::local
