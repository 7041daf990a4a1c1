#pragma once

#include <memory>
#include <optional>

#include "launcher/app/contract.hpp"
#include "launcher/progress/judge.hpp"
#include "lib/base/log.hpp"
#include "lib/net/asio_loop.hpp"

namespace pitcrew::launcher {

struct LauncherSettings {
  Duration look_every = milliseconds(500);  // at the progress page
  Duration progress_every = seconds(1);     // to the operator, where nothing important has changed
  Duration stall_floor = seconds(10);       // no learned limit is shorter
  Duration not_clean_after = seconds(10);   // an abort that lasts longer is told
  // For a SIGTERM from outside. The pod's own grace period ends it earlier, by SIGKILL.
  Duration grace = hours(1);
  Duration drain = seconds(5);  // for whoever reads our output, at the end
  int stdout_fd = 1;
};

// The launcher of one pod: carries out what the operator says over the control channel (epoch, stop, save, diagnose,
// finish), one epoch after another, watches the ranks, and reports. Training goes on while the operator is away; what
// matters is said again after a reconnect until the epoch changes.
//
// Lives on the loop, whose thread is the process's main one. run() returns the exit code once told to finish, or once a
// SIGTERM from outside has been obeyed.
class Launcher {
 public:
  static Result<std::unique_ptr<Launcher>> create(net::AsioLoop& loop, Contract contract, LauncherSettings settings,
                                                  uint64_t seed, Logger log);
  ~Launcher();
  Launcher(const Launcher&) = delete;
  Launcher& operator=(const Launcher&) = delete;

  int run();
  uint16_t metrics_port() const;  // 0: none

 private:
  struct State;
  explicit Launcher(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace pitcrew::launcher
