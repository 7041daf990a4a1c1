#pragma once

#include <string>
#include <vector>

#include <fcntl.h>
#include <spawn.h>

#include "agent/probe/testing/fake_host.hpp"

namespace pitcrew::agent {

// Makes `kubeconfig` in the host's folder, for an API server of lib/local on this port.
inline void write_kubeconfig(const FakeHost& host, uint16_t port) {
  host.file("kubeconfig",
            "{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: c, cluster: {server: "
            "'http://127.0.0.1:" +
                std::to_string(port) +
                "'}}], users: [{name: u, user: {}}], contexts: [{name: c, context: {cluster: c, user: u}}]}");
}

// Starts the agent as node n1 with the `agent.yaml`, `kubeconfig` and `faults.yaml` of the host's folder, on the GPUs
// of a capture ("p5en") of agent/probe/nvml; what it says is appended to `stderr` there. Its pid; 0: it can't be
// started.
inline pid_t start_agent(const std::string& program, const FakeHost& host, const std::string& capture) {
  const std::string& folder = host.folder();
  std::vector<std::string> environment{
      "NODE_NAME=n1", "PITCREW_NVML_FAULTS=" + folder + "/faults.yaml",
      "PITCREW_NVML_CAPTURE=" PITCREW_SOURCE_DIR "/agent/probe/nvml/captures/" + capture + ".yaml"};
  std::vector<std::string> arguments{program, "--config", folder + "/agent.yaml", "--kubeconfig",
                                     folder + "/kubeconfig"};
  const auto pointers = [](std::vector<std::string>& texts) {
    std::vector<char*> all;
    for (std::string& text : texts) all.push_back(text.data());
    all.push_back(nullptr);
    return all;
  };
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, 2, (folder + "/stderr").c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600);
  pid_t pid = 0;
  const int failed =
      posix_spawn(&pid, program.c_str(), &files, nullptr, pointers(arguments).data(), pointers(environment).data());
  posix_spawn_file_actions_destroy(&files);
  return failed == 0 ? pid : 0;
}

}  // namespace pitcrew::agent
