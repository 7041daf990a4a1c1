#pragma once

#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

namespace pitcrew::local {

// All living descendants of a process, found by their parents in /proc, zombies left out. What has left its session or
// its group is still a descendant; an orphan is one of the nearest sub-reaper's.
std::vector<pid_t> descendants(pid_t root);
// The living children of a process.
std::vector<pid_t> children(pid_t parent);
// The children of a process that have ended and that it has not waited for.
std::vector<pid_t> zombies(pid_t parent);
// SIGKILL to all descendants until there are none: what is forked meanwhile is found in the next round. Reaps what is
// the caller's own, `keep` apart. False where some were left after `rounds`.
bool kill_descendants(pid_t root, int rounds = 200, const std::vector<pid_t>& keep = {});
// SIGSTOP to all descendants until all of them stand still.
void stop_descendants(pid_t root);
// Whether the environment that a process was started with holds this "NAME=value". Nothing where it shows none, as in
// the middle of an exec or an exit, or when it is gone: whose process it is can't be told then.
std::optional<bool> has_environment(pid_t pid, const std::string& entry);
// How many processes the kernel has killed for want of memory since it started (/proc/vmstat oom_kill).
unsigned long oom_kills();

}  // namespace pitcrew::local
