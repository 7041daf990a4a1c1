#include "agent/probe/lustre/lustre.hpp"

#include <array>
#include <set>

#include "agent/probe/disk/mounts.hpp"
#include "agent/probe/lustre/parse.hpp"
#include "agent/probe/observation_tools.hpp"

namespace pitcrew::agent::lustre {
namespace {

constexpr size_t kMaxTargets = 512;

// Calls whose number and time are told; others are rare or of no use.
constexpr std::array<std::string_view, 8> kCalls = {"open",    "close",   "fsync", "getattr",
                                                    "setattr", "readdir", "mknod", "unlink"};

void add(Observation& observation, const std::string& name, double value) {
  auto& kept = observation.values.try_emplace(name, 0.0).first->second;
  kept = std::get<double>(kept) + value;
}

// Several mounts of one file system are one client.
void add_stats(const std::map<std::string, Counter, std::less<>>& stats, Observation& client) {
  for (const std::string_view name : {"read_bytes", "write_bytes"}) {
    const auto found = stats.find(name);
    if (found == stats.end()) continue;
    add(client, std::string(name), found->second.sum);
    add(client, std::string(name.substr(0, name.find('_'))) + "_calls", found->second.samples);
  }
  for (const std::string_view name : {"read", "write"}) {
    const auto found = stats.find(name);
    if (found != stats.end() && found->second.unit.starts_with("usec")) {
      add(client, std::string(name) + "_seconds", found->second.sum * 1e-6);
    }
  }
  double calls = 0, seconds = 0;
  bool timed = false;
  for (const std::string_view name : kCalls) {
    const auto found = stats.find(name);
    if (found == stats.end()) continue;
    calls += found->second.samples;
    if (found->second.unit.starts_with("usec")) seconds += found->second.sum * 1e-6, timed = true;
  }
  add(client, "metadata_calls", calls);
  if (timed) add(client, "metadata_seconds", seconds);
}

}  // namespace

void LustreProbe::look_at_clients(const Folder& llite, Instant now, std::vector<Observation>& out) {
  std::map<std::string, Observation> clients;
  for (const std::string& name : llite.entries()) {
    const auto folder = llite.folder(name);
    if (!folder) continue;
    const auto text = folder->text("stats", 64 * 1024);
    if (!text) continue;
    const std::string system = without_instance(name);
    auto client = clients.try_emplace(system, make_reading("lustre.client", system, now)).first;
    add_stats(parse_stats(*text), client->second);
  }
  for (auto& [name, client] : clients) out.push_back(std::move(client));
}

void LustreProbe::look_at_targets(const Folder& targets, Instant now, std::vector<Observation>& out) {
  size_t taken = 0;
  for (const std::string& name : targets.entries()) {
    const auto folder = targets.folder(name);
    if (!folder) continue;
    const auto text = folder->text("import", 16 * 1024);
    if (!text) continue;
    const auto import = parse_import(*text);
    if (!import) continue;
    Observation target =
        make_reading("lustre.target", import->target.empty() ? without_instance(name) : import->target, now);
    target.values["state"] = import->state;
    // A connection without work is closed until there is some: idle is well.
    target.values["connected"] = import->state == "FULL" || import->state == "IDLE" ? 1.0 : 0.0;
    const auto set = [&](const char* as, const std::optional<double>& value, double scale = 1) {
      if (value) target.values[as] = *value * scale;
    };
    set("inflight", import->inflight);
    set("timeouts", import->timeouts);
    set("wait_seconds", import->wait_microseconds, 1e-6);
    set("attempts", import->attempts);
    set("read_rpc_seconds", import->read_microseconds, 1e-6);
    set("write_rpc_seconds", import->write_microseconds, 1e-6);
    if (const auto history = folder->text("state", 16 * 1024)) {
      Evictions& evictions = evictions_[name];
      evictions.looked = now;
      for (const Transition& transition : parse_state_history(*history)) {
        if (transition.state != "EVICTED" || transition.time <= evictions.newest) continue;
        ++evictions.count;
        evictions.newest = transition.time;
      }
      target.values["evictions"] = evictions.count;
    }
    if (target.number("connected") == 0) target.text = target.device + " is " + import->state;
    out.push_back(std::move(target));
    if (++taken == kMaxTargets) return;
  }
}

Result<std::vector<Observation>> LustreProbe::look(Instant now) {
  std::vector<Observation> out;
  // Which of these a client uses changes with its version; a part is taken where it is found first.
  std::set<std::string_view> found;
  for (const std::string& root :
       {paths_.proc + "/fs/lustre", paths_.sys + "/fs/lustre", paths_.sys + "/kernel/debug/lustre"}) {
    const auto folder = Folder::open(root);
    if (!folder) continue;
    for (const std::string_view part : {"llite", "osc", "mdc"}) {
      if (found.contains(part)) continue;
      const auto inner = folder->folder(std::string(part));
      if (!inner) continue;
      const size_t before = out.size();
      if (part == "llite") {
        look_at_clients(*inner, now, out);
      } else {
        look_at_targets(*inner, now, out);
      }
      if (out.size() > before) found.insert(part);
    }
  }
  // A client that was mounted anew has another name.
  std::erase_if(evictions_, [&](const auto& entry) { return now - entry.second.looked > hours(1); });
  if (found.contains("llite")) return out;
  PITCREW_ASSIGN(const std::vector<disk::Mount> mounts, disk::read_mounts(paths_));
  for (const disk::Mount& mount : mounts) {
    if (mount.type != "lustre") continue;
    return Error(Code::kForbidden, "Lustre is mounted at " + mount.point +
                                       " and its counters (llite/*/stats) are in none of " + paths_.proc +
                                       "/fs/lustre, " + paths_.sys + "/fs/lustre, " + paths_.sys +
                                       "/kernel/debug/lustre; the last needs debugfs and root");
  }
  return out;
}

}  // namespace pitcrew::agent::lustre
