#pragma once

#include <memory>
#include <string>

#include "lib/base/launcher_socket.hpp"

namespace pitcrew::trainer {

// A rank's end of the launcher's socket. Thread-safe: requests of several threads overlap.
class LauncherClient {
 public:
  virtual ~LauncherClient() = default;
  // Blocks until the launcher has answered. An answer that carries an error becomes that error; kUnavailable: the
  // launcher can't be reached, kDeadlineExceeded: it did not answer in time.
  virtual Result<launcher_socket::Answer> call(const launcher_socket::Request& request) = 0;
  // Ends all calls, present and future, with kCancelled. From any thread.
  virtual void abort() = 0;
};

// Over the Unix socket at `path` (PITCREW_LAUNCHER). Connects at the first call and again after a failure.
std::unique_ptr<LauncherClient> connect_launcher(std::string path, Duration timeout = minutes(2));

}  // namespace pitcrew::trainer
