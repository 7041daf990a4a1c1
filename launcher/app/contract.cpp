#include "launcher/app/contract.hpp"

#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>

#include <sys/stat.h>
#include <unistd.h>

#include "lib/api/launcher_contract.hpp"
#include "lib/base/json.hpp"

namespace pitcrew::launcher {
namespace {

namespace contract = api::launcher;

class Reader {
 public:
  explicit Reader(const std::vector<std::string>& environment) : environment_(environment) {}

  std::optional<std::string> find(const char* name) const {
    const std::string prefix = std::string(name) + "=";
    for (const std::string& entry : environment_) {
      if (entry.starts_with(prefix)) return entry.substr(prefix.size());
    }
    return std::nullopt;
  }
  std::string required(const char* name) {
    const auto value = find(name);
    if (value && !value->empty()) return *value;
    problems_.push_back({name, "is not set; the operator's pod builder sets it"});
    return {};
  }
  std::string value_or(const char* name, const char* fallback) const {
    const auto value = find(name);
    return value && !value->empty() ? *value : fallback;
  }
  uint32_t number(const char* name, uint32_t least, uint32_t most, std::optional<uint32_t> fallback) {
    const auto text = find(name);
    if ((!text || text->empty()) && fallback) return *fallback;
    const std::string digits = text.value_or("");
    uint32_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc() || end != digits.data() + digits.size() || value < least || value > most) {
      problems_.push_back(
          {name, "'" + digits + "' is not a number from " + std::to_string(least) + " to " + std::to_string(most)});
    }
    return value;
  }
  Problems& problems() { return problems_; }

 private:
  const std::vector<std::string>& environment_;
  Problems problems_;
};

bool is_folder(const std::string& path) {
  struct stat st {};
  return stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
}

}  // namespace

Result<Contract> read_contract(std::vector<std::string> command, std::vector<std::string> environment) {
  Contract out;
  out.command = std::move(command);
  out.environment = std::move(environment);
  Reader reader(out.environment);
  if (out.command.empty())
    reader.problems().push_back({"run", "no command after '--'; the container's command goes there"});
  out.job_uid = reader.required(contract::kJobUid);
  out.pod_name = reader.required(contract::kPodName);
  out.pod_uid = reader.required(contract::kPodUid);
  out.pod_namespace = reader.required(contract::kPodNamespace);
  out.pod_ip = reader.required(contract::kPodIp);
  out.node = reader.required(contract::kNodeName);
  out.processes = reader.number(contract::kProcesses, 1, 256, std::nullopt);
  out.metrics_port = static_cast<uint16_t>(reader.number(contract::kMetricsPort, 0, 65535, 0));
  out.peer_copy_mb = reader.number(contract::kPeerCopyRate, 0, 1'000'000, 0);
  out.channel_file = reader.value_or(contract::kChannelFileVariable, contract::kChannelFile);
  out.token_file = reader.value_or(contract::kTokenFileVariable, contract::kTokenFile);
  out.run_folder = reader.value_or(contract::kRunFolderVariable, contract::kRunFolder);
  out.memory_folder = reader.value_or(contract::kMemoryFolderVariable, contract::kMemoryFolder);
  out.rank_logs = reader.value_or(contract::kRankLogs, "");
  if (!is_folder(out.memory_folder)) out.memory_folder.clear();
  if (!is_folder(out.run_folder) || access(out.run_folder.c_str(), W_OK | X_OK) != 0) {
    reader.problems().push_back(
        {contract::kRunFolderVariable, out.run_folder + " is not a folder that can be written; the operator mounts an "
                                                        "emptyDir there"});
  }
  if (!out.rank_logs.empty() && !is_folder(out.rank_logs)) {
    reader.problems().push_back({contract::kRankLogs, out.rank_logs + " is not a folder"});
  }
  if (const auto text = reader.find(contract::kPathMap); text && !text->empty()) {
    const auto json = parse_json(*text);
    bool good = json && json->is_object();
    if (good) {
      for (const auto& [from, to] : json->items()) {
        good = good && to.is_string();
        if (to.is_string()) out.path_map[from] = to.get<std::string>();
      }
    }
    if (!good) reader.problems().push_back({contract::kPathMap, "must be a JSON object of paths"});
  }
  if (!reader.problems().empty()) return Error(Code::kInvalidArgument, join(reader.problems()));
  return out;
}

std::string map_path(const std::map<std::string, std::string>& map, const std::string& path) {
  const std::string* best = nullptr;
  for (const auto& [from, to] : map) {
    const std::string prefix = from.ends_with('/') ? from.substr(0, from.size() - 1) : from;
    const bool fits = path.starts_with(prefix) && (path.size() == prefix.size() || path[prefix.size()] == '/');
    if (fits && (best == nullptr || from.size() > best->size())) best = &from;
  }
  if (best == nullptr) return path;
  const size_t length = best->ends_with('/') ? best->size() - 1 : best->size();
  return map.at(*best) + path.substr(length);
}

}  // namespace pitcrew::launcher
