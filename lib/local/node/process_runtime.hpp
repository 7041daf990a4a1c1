#pragma once

#include <memory>
#include <string>
#include <vector>

#include "lib/base/log.hpp"
#include "lib/base/loop.hpp"
#include "lib/local/node/container_runtime.hpp"

namespace pitcrew::local {

struct ProcessRuntimeSettings {
  // The program that calls node_shim_main(fd), and its arguments; the socket's number is appended.
  std::vector<std::string> shim_command;
};

// A node whose containers are processes, all below one process that is the node (node_shim.hpp). When that one dies, by
// whatever hand, everything on the node is killed before died() is told; when the process that owns this object dies,
// so does the node.
//
// The owner becomes a sub-reaper. Threads: one that reads the shim's socket and posts to the loop; everything else on
// the loop. Destroying it ends the node.
class ProcessRuntime final : public ContainerRuntime {
 public:
  ProcessRuntime(Loop& loop, ProcessRuntimeSettings settings, Logger log = {});
  ~ProcessRuntime() override;

  void boot(Handler& handler) override;
  void start(ContainerSpec spec) override;
  void signal(const std::string& id, int number) override;
  void kill(const std::string& id) override;
  void freeze() override;
  void power_off() override;

  // Of the node's process; -1 while it is off.
  int pid() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace pitcrew::local
