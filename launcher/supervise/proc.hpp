#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <sys/types.h>

namespace pitcrew::launcher {

// A small file, of /proc or a volume, at most 64 KiB; empty where it can't be read.
std::string read_proc(const std::string& path);

// Every process below `ancestor`, in whatever session or process group it is. A picture that may be old by the time it
// is looked at: whoever kills repeats until waitpid() knows no child any more.
std::vector<pid_t> descendants_of(pid_t ancestor);

// "pid 812 python (D, in nfs_wait)": for people.
std::string describe_process(pid_t pid);

// Whether the process has a handler of its own for the signal.
bool catches_signal(pid_t pid, int signal);

// What the kernel says of every thread: name, state, where it waits, its system call, its kernel stack. Each as far as
// it may be read; nothing is needed from the image.
std::string kernel_stacks(pid_t pid, size_t limit);

// Its own anonymous resident memory in bytes (RssAnon), 0 where it can't be read.
uint64_t anonymous_memory(pid_t pid);

}  // namespace pitcrew::launcher
