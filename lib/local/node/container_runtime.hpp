#pragma once

#include <map>
#include <string>
#include <vector>

namespace pitcrew::local {

// One run of one container: a container that is restarted gets a new id.
struct ContainerSpec {
  std::string id;  // unique on its node: <pod UID>/<container>/<attempt>
  std::string ns;
  std::string pod_name;
  std::string pod_uid;
  std::string container;
  bool init = false;
  std::vector<std::string> argv;
  std::map<std::string, std::string> env;
  std::string folder;    // where it starts; empty: /
  std::string log_file;  // stdout and stderr, appended; empty: dropped
};

struct ContainerExit {
  int exit_code = 0;  // 128 + signal where a signal ended it, as Kubernetes shows it
  int signal = 0;
  bool oom = false;
  bool start_failed = false;
  std::string message;
};

// Runs the containers of one node, and is the node's power switch: between boot() and died() it is on. The kubelet owns
// the decisions, the runtime owns what runs. Lives on the loop; its handler is called on it, never from inside a call.
class ContainerRuntime {
 public:
  class Handler {
   public:
    virtual ~Handler() = default;
    virtual void booted() = 0;
    virtual void exited(const std::string& id, const ContainerExit& exit) = 0;
    // The node is off, and everything that ran on it is gone.
    virtual void died(const std::string& reason) = 0;
  };

  virtual ~ContainerRuntime() = default;
  // Switches the node on. `handler` outlives the runtime, or power_off() ends with died().
  virtual void boot(Handler& handler) = 0;
  // A container that can't be started is reported by exited() with start_failed.
  virtual void start(ContainerSpec spec) = 0;
  // To the container's first process.
  virtual void signal(const std::string& id, int number) = 0;
  // SIGKILL to everything that the container started, whatever session it is in.
  virtual void kill(const std::string& id) = 0;
  // Everything on the node stands still from one instant on, and says nothing any more; connections stay open.
  virtual void freeze() = 0;
  // Everything on the node ends at once. died() follows.
  virtual void power_off() = 0;
};

}  // namespace pitcrew::local
