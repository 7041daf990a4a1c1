#include "agent/probe/pods/gpu_users.hpp"

#include <algorithm>

namespace pitcrew::agent {
namespace {

constexpr size_t kIdLength = 64;  // hexadecimal digits, of containerd and CRI-O
constexpr size_t kMaxPids = 64;
constexpr size_t kUidDigits = 5;  // of a TrainingJob's UID in its pods' names

bool is_hex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }

// The last run of exactly 64 hexadecimal digits.
std::optional<std::string> last_id(std::string_view text) {
  for (size_t end = text.size(); end >= kIdLength;) {
    size_t begin = end;
    while (begin > 0 && is_hex(text[begin - 1])) --begin;
    if (end - begin == kIdLength) return std::string(text.substr(begin, kIdLength));
    end = begin > 0 ? begin - 1 : 0;
  }
  return std::nullopt;
}

// What is before the last dash, where all behind it is of a kind and there is something before it; else nothing.
std::optional<std::string_view> without_end(std::string_view name, bool (*kind)(char), size_t length = 0) {
  const size_t dash = name.rfind('-');
  if (dash == std::string_view::npos || dash == 0) return std::nullopt;
  const std::string_view end = name.substr(dash + 1);
  if (end.empty() || (length != 0 && end.size() != length)) return std::nullopt;
  return std::all_of(end.begin(), end.end(), kind) ? std::optional(name.substr(0, dash)) : std::nullopt;
}

std::string job_of(std::string_view pod) {
  const auto numbered = without_end(pod, [](char c) { return c >= '0' && c <= '9'; });
  if (!numbered) return std::string(pod);
  // A TrainingJob's pod: its name, the beginning of its UID, the serial (api::pod_name).
  const auto job = without_end(*numbered, is_hex, kUidDigits);
  return std::string(job ? *job : *numbered);
}

}  // namespace

std::optional<std::string> container_of_cgroup(std::string_view text) {
  for (const std::string_view line : split_lines(text)) {
    // In a control-group namespace of one's own the path begins at one's own group: "/../../pod<uid>/<id>".
    if (line.find("kubepods") == std::string_view::npos && line.find("/pod") == std::string_view::npos) continue;
    if (auto id = last_id(line)) return id;
  }
  return std::nullopt;
}

std::optional<std::pair<std::string, GpuUser>> container_of_log(std::string_view name) {
  constexpr std::string_view kEnd = ".log";
  if (!name.ends_with(kEnd)) return std::nullopt;
  name.remove_suffix(kEnd.size());
  if (name.size() < kIdLength + 1 || name[name.size() - kIdLength - 1] != '-') return std::nullopt;
  const auto id = last_id(name);
  if (!id) return std::nullopt;
  name.remove_suffix(kIdLength + 1);
  // No part has an underscore: all three are DNS names.
  const size_t first = name.find('_'), second = name.find('_', first + 1);
  if (first == std::string_view::npos || second == std::string_view::npos) return std::nullopt;
  GpuUser user;
  user.pod = name.substr(0, first);
  user.ns = name.substr(first + 1, second - first - 1);
  user.container = name.substr(second + 1);
  user.job = job_of(user.pod);
  return std::pair(*id, user);
}

bool GpuUsers::take(const Observation& reading) {
  if (reading.kind != "gpu.processes") return false;
  const std::string pids = reading.word("pids");
  std::string& known = pids_[reading.device];
  GpuUser& user = users_[reading.device];
  // The same processes are the same pod's; one whose pod was not found is looked for again.
  if (known == pids && (pids.empty() || !user.pod.empty())) return false;
  known = pids;
  const GpuUser before = std::exchange(user, find(pids));
  return before != user;
}

GpuUser GpuUsers::find(std::string_view pids) {
  size_t looked = 0;
  bool read = false;
  while (!pids.empty() && looked++ < kMaxPids) {
    const size_t comma = pids.find(',');
    const std::string pid(pids.substr(0, comma));
    pids.remove_prefix(comma == std::string_view::npos ? pids.size() : comma + 1);
    const auto text = read_text(paths_.proc + "/" + pid + "/cgroup");
    const auto id = text ? container_of_cgroup(*text) : std::nullopt;
    if (!id) continue;
    if (!containers_.contains(*id) && !std::exchange(read, true)) read_logs();
    if (const auto found = containers_.find(*id); found != containers_.end()) return found->second;
  }
  return {};
}

void GpuUsers::read_logs() {
  containers_.clear();
  const auto folder = Folder::open(paths_.root + "/var/log/containers");
  if (!folder) return;
  for (const std::string& name : folder->entries()) {
    if (auto container = container_of_log(name)) containers_.insert(std::move(*container));
  }
}

}  // namespace pitcrew::agent
