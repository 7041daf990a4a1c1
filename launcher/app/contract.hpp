#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/result.hpp"

namespace pitcrew::launcher {

// What the operator put into the pod (lib/api/launcher_contract.hpp).
struct Contract {
  std::vector<std::string> command;
  std::vector<std::string> environment;  // inherited, "NAME=value"
  std::string job_uid;
  std::string pod_name;
  std::string pod_uid;
  std::string pod_namespace;
  std::string pod_ip;
  std::string node;
  uint32_t processes = 1;
  uint16_t metrics_port = 0;  // 0: none
  uint32_t peer_copy_mb = 0;  // a second; 0: no cap
  std::string channel_file;
  std::string token_file;
  std::string memory_folder;  // empty: there is none
  std::string run_folder;
  std::string rank_logs;  // empty: none
  std::map<std::string, std::string> path_map;
};

// Everything that is missing or wrong is in the one error.
Result<Contract> read_contract(std::vector<std::string> command, std::vector<std::string> environment);

// The path with its longest mapped prefix replaced; prefixes end at a '/'.
std::string map_path(const std::map<std::string, std::string>& map, const std::string& path);

}  // namespace pitcrew::launcher
