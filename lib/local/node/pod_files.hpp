#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/json.hpp"
#include "lib/local/node/container_runtime.hpp"

namespace pitcrew::local {

// Where the pods of a node without mount namespaces keep their files.
struct PodFilesSettings {
  std::string pods_folder;        // of this node: <pods_folder>/<pod UID>/<volume>
  std::string volumes_folder;     // shared by all nodes: persistent volume claims and other network volumes,
                                  // <volumes_folder>/<claim>
  std::string memory_folder;      // of this node, in /dev/shm where it is large enough: emptyDir {medium: Memory}
  std::string logs_folder;        // <logs_folder>/<pod>/<container>.log
  std::string launcher_binary;    // what the launcher's init container puts into its folder
  std::string working_folder;     // of containers that name none
  std::vector<std::string> path;  // in front of PATH: where pitcrew-train is
  std::map<std::string, std::string> base_env;  // HOME, PATH and the like; a container's own wins
};

// What the kubelet knows of a pod's surroundings.
struct PodFacts {
  std::string pod_ip;
  std::string host_ip;
  std::string node;
};

using TokenSource = std::function<std::string(const std::string& audience, Duration lifetime)>;

// The volumes of one pod as folders, and its containers as commands: paths below a mount become paths below the
// volume's folder. A value with effects on the file system alone; one per pod, on the kubelet's loop.
class PodFiles {
 public:
  PodFiles(PodFilesSettings settings, const Json& pod, PodFacts facts);

  // Makes the folders and files of all volumes; may be repeated. Memory volumes of an earlier boot are emptied with
  // `fresh_memory`.
  Status make(const TokenSource& tokens, bool fresh_memory);
  // Writes again what comes from metadata, where it has changed.
  Status refresh(const Json& pod);
  Status refresh_tokens(const TokenSource& tokens);
  // When the earliest token should be replaced: 80 % of its life; nothing where there is none.
  std::optional<Duration> token_life() const;
  // Removes everything of this pod but shared volumes and logs.
  void remove();

  // What the kubelet runs for a container of the pod's JSON. `launcher_init` containers are done by install_launcher().
  Result<ContainerSpec> container(const Json& container, const std::string& id) const;
  Status install_launcher() const;

 private:
  std::string folder_of(const Json& volume) const;
  std::string local_path(const Json& mount) const;
  std::map<std::string, std::string> path_map(const Json& container) const;
  Result<std::map<std::string, std::string>> environment(const Json& container,
                                                         const std::map<std::string, std::string>& paths) const;
  Result<std::string> field(const std::string& path) const;
  Status write_downward(const Json& items, const std::string& folder) const;

  PodFilesSettings settings_;
  Json pod_;
  PodFacts facts_;
  std::map<std::string, std::string> folders_;  // volume name → local folder
};

// What of a pod template can't run without images, mounts and devices of its own, each with the remedy.
Problems check_runnable_locally(const Json& pod_template);

}  // namespace pitcrew::local
