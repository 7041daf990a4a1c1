#pragma once

#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "lib/base/result.hpp"

namespace pitcrew::launcher {

// An open file descriptor, closed by its owner's end.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor() { reset(); }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release();
  void reset();

 private:
  int fd_ = -1;
};

struct Program {
  std::vector<std::string> command;      // found in PATH of `environment` where it has no slash
  std::vector<std::string> environment;  // "NAME=value"
};

struct Process {
  pid_t pid = -1;
  Descriptor output;      // its stdout and stderr, in the order in which they were written; not blocking
  Descriptor exec_error;  // holds an errno once it is known that the program could not be started; not blocking
};

// Starts the program in a process group of its own; it dies with the thread that calls this (PR_SET_PDEATHSIG), which
// must be the launcher's main one. Its stdin is /dev/null; no other descriptor of ours and no signal setting passes on.
// Returns before the program is executed, so that a file system that hangs holds the child only.
Result<Process> start_process(const Program& program);

// The errno that the child left before it gave up, if it did.
std::optional<int> read_exec_error(const Process& process);

}  // namespace pitcrew::launcher
