#pragma once

#include <functional>

#include <sys/types.h>

namespace pitcrew::local {

// The processes that this program starts and waits for itself. A sub-reaper gets orphans as children beside them, and
// only who knows its own can take the others' zombies away. From any thread.

// Runs `start`, which starts a process and returns its pid, or -1. Until wait_for_child() it is no orphan.
pid_t start_child(const std::function<pid_t()>& start);
// Waits for the end of a process that start_child() started; its status as waitpid() tells it.
int wait_for_child(pid_t pid);
// Waits for the children that have ended and that nobody here started. False where one is still on its way out.
bool reap_orphans();

}  // namespace pitcrew::local
