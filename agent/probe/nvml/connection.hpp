#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "agent/probe/nvml/library.hpp"
#include "lib/base/time.hpp"

namespace pitcrew::agent::nvml {

// The library as the probes share it: opened when it is first asked for, and opened anew where the driver was replaced
// or started late. Thread-safe; a probe that still works with the old one keeps it until it is done.
class Connection {
 public:
  struct Settings {
    std::string path = "libnvidia-ml.so.1";
    bool needed = false;           // the machine should have GPUs: no library is then a probe that can't look
    Duration again = seconds(30);  // how long after an attempt the next one is made
  };
  explicit Connection(Settings settings) : settings_(std::move(settings)) {}

  // Null where there is no library and none is needed.
  Result<std::shared_ptr<const Library>> get(Instant now);
  // A probe's error with this library: where it says that the driver is gone, the next get() opens it anew.
  void failed(const std::shared_ptr<const Library>& library, const Error& error);
  // How often it was opened: a number that grows says that the driver has started anew.
  uint64_t opened() const;

 private:
  const Settings settings_;
  mutable std::mutex mutex_;
  std::shared_ptr<const Library> library_;
  std::optional<Result<std::shared_ptr<const Library>>> last_;  // while no other attempt is due
  Instant tried_;
  uint64_t opened_ = 0;
};

}  // namespace pitcrew::agent::nvml
