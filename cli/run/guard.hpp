#pragma once

#include <memory>
#include <string>

#include "lib/net/asio_loop.hpp"

namespace pitcrew::cli {

// A process that outlives `pitcrew run` by a moment: when that one is gone, however it ended, the guard kills every
// process that carries the run's mark in its environment and removes the run's memory. Started again when somebody
// kills it. Lives on the loop.
class Guard {
 public:
  Guard(net::AsioLoop& loop, std::string run_id, std::string memory_folder);
  ~Guard();  // the guard does its work and ends; waits for it
  Guard(const Guard&) = delete;

 private:
  void start();

  net::AsioLoop& loop_;
  std::string run_id_;
  std::string memory_folder_;
  int pid_ = -1;
  int pipe_ = -1;  // its reader is the guard: it ends when we do
  net::AsioLoop::WatchPtr watch_;
  Loop::TimerPtr again_;
};

// The guard's own main: waits for the end of the descriptor, then cleans up. Returns its exit code.
int guard_main(int fd, const std::string& run_id, const std::string& memory_folder);

// The entry that marks a run's processes: "PITCREW_RUN=<id>".
std::string run_mark(const std::string& run_id);

}  // namespace pitcrew::cli
