#include "tests/simulation/coverage.hpp"

#include <cstdio>

#include "tests/simulation/injector.hpp"

namespace pitcrew::simulation {
namespace {

const char* const kColumns[] = {"InPlace", "Relaunched", "SpareTaken", "Recreated", "Released", "Failed", "none"};

// Which rungs a fault can come to, when nothing else happens nearby; `none`: nothing has to be recovered.
const std::map<std::string, std::vector<std::string>>& possible() {
  static const std::map<std::string, std::vector<std::string>> cells{
      {"bad-program", {"InPlace", "SpareTaken", "Failed"}},
      {"rank-crash", {"InPlace"}},
      {"rank-exception", {"InPlace"}},
      {"bad-configuration", {"Failed"}},
      {"replace-my-node", {"SpareTaken", "Recreated"}},
      {"hang", {"InPlace"}},
      {"launcher-death", {"Relaunched"}},
      {"launcher-dies-twice", {"Relaunched", "SpareTaken"}},
      {"power-off", {"SpareTaken", "Recreated"}},
      {"freeze", {"SpareTaken", "Recreated"}},
      {"partition", {"SpareTaken", "InPlace"}},
      {"channel-cut", {"none"}},
      {"herd", {"none"}},
      {"drought", {"Recreated", "Released"}},
      {"pod-deleted", {"SpareTaken"}},
      {"drain", {"SpareTaken"}},
      {"gpu-fault", {"SpareTaken", "Recreated"}},
      {"contained-error", {"InPlace"}},
      {"fleet-verdict", {"none"}},
      {"suspend", {"none"}},
      {"leader-killed", {"none"}},
      {"leader-paused", {"none"}},
      {"leader-cut-off", {"none"}},
      {"api-trouble", {"none"}},
      {"watches-lost", {"none"}},
  };
  return cells;
}

}  // namespace

void Coverage::add(const World& world) {
  const auto& faults = world.faults();
  std::vector<bool> used(faults.size(), false);
  for (const Invariants::Seen& seen : world.invariants().recoveries()) {
    const Instant detected = seen.recovery.detected.value_or(Instant{});
    std::optional<size_t> best;
    for (size_t i = 0; i < faults.size(); ++i) {
      const FaultRecord& fault = faults[i];
      if (fault.at > detected || detected - fault.at > fault.effect) continue;
      // What hits a job by itself comes before what hits everybody.
      if (!fault.jobs.contains(seen.job_uid)) continue;
      if (!best || fault.at > faults[*best].at) best = i;
    }
    if (!best) continue;
    used[*best] = true;
    ++cells_[faults[*best].kind][std::string(api::to_string(seen.recovery.rung))];
  }
  for (size_t i = 0; i < faults.size(); ++i) {
    if (!used[i]) ++cells_[faults[i].kind]["none"];
  }
}

void Coverage::merge(const Coverage& other) {
  for (const auto& [kind, row] : other.cells_) {
    for (const auto& [rung, times] : row) cells_[kind][rung] += times;
  }
}

std::string Coverage::table() const {
  char line[256];
  std::snprintf(line, sizeof line, "%-20s", "fault");
  std::string text = line;
  for (const char* column : kColumns) {
    std::snprintf(line, sizeof line, "%12s", column);
    text += line;
  }
  text += "\n";
  for (const std::string& kind : Injector::kinds()) {
    std::snprintf(line, sizeof line, "%-20s", kind.c_str());
    text += line;
    const auto row = cells_.find(kind);
    for (const char* column : kColumns) {
      const uint64_t times = row == cells_.end() || !row->second.contains(column) ? 0 : row->second.at(column);
      std::snprintf(line, sizeof line, "%12llu", static_cast<unsigned long long>(times));
      text += line;
    }
    text += "\n";
  }
  return text;
}

std::vector<std::string> Coverage::below(uint64_t times) const {
  std::vector<std::string> missing;
  for (const auto& [kind, rungs] : possible()) {
    for (const std::string& rung : rungs) {
      const auto row = cells_.find(kind);
      const uint64_t hit = row == cells_.end() || !row->second.contains(rung) ? 0 : row->second.at(rung);
      if (hit < times) missing.push_back(kind + " -> " + rung + ": " + std::to_string(hit));
    }
  }
  return missing;
}

}  // namespace pitcrew::simulation
