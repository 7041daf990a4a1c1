#include "operator/decide/efa_blame.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <string_view>

namespace pitcrew::control {
namespace {

constexpr Duration kHistory = minutes(5);

// What a device counts of itself, and what it counts of the far end (kernel driver, efa_hw_stats).
constexpr std::array<std::string_view, 4> kOwn = {"rdma_read_wr_err", "rdma_write_wr_err", "rx_drops", "cmds_err"};
constexpr std::array<std::string_view, 3> kRemote = {"unresponsive_remote_events", "impaired_remote_conn_events",
                                                     "retrans_timeout_events"};

template <size_t N>
bool one_of(const std::array<std::string_view, N>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

template <size_t N>
double sum(const EfaReport& report, const std::array<std::string_view, N>& names, Instant now) {
  double total = 0;
  for (const api::DeviceRate& rate : report.rates) {
    if (one_of(names, rate.counter) && now - rate.time < kHistory) total += std::max(rate.per_second, 0.0);
  }
  return total;
}

std::string per_second(double rate) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g/s", rate);
  return text;
}

EfaBlame blame(const EfaReport& report, const std::string& why) {
  return {report.slot, report.node, "EFA: node " + report.node + " " + why};
}

std::optional<EfaBlame> by_reachability(const std::vector<EfaReport>& reports) {
  std::map<Slot, size_t> voices;
  for (const EfaReport& report : reports) {
    for (const Slot peer : report.unreachable) voices[peer] += peer != report.slot;
  }
  const EfaReport* worst = nullptr;
  size_t most = 0;
  for (const EfaReport& report : reports) {
    const auto found = voices.find(report.slot);
    const size_t count = found == voices.end() ? 0 : found->second;
    if (count == most && count > 0) worst = nullptr;  // two are as bad as one another
    if (count > most) {
      worst = &report;
      most = count;
    }
  }
  if (worst == nullptr || most < 2 || 2 * most <= reports.size() - 1) return std::nullopt;
  return blame(*worst,
               "can't be reached by " + std::to_string(most) + " of " + std::to_string(reports.size() - 1) + " others");
}

std::optional<EfaBlame> by_own_errors(const std::vector<EfaReport>& reports, Instant now) {
  const EfaReport* only = nullptr;
  double rate = 0;
  for (const EfaReport& report : reports) {
    const double own = sum(report, kOwn, now);
    if (own <= 0) continue;
    if (only != nullptr) return std::nullopt;
    only = &report;
    rate = own;
  }
  if (only == nullptr || reports.size() < 2) return std::nullopt;
  return blame(*only, "alone has errors of its own devices (" + per_second(rate) + ")");
}

std::optional<EfaBlame> by_remote_errors(const std::vector<EfaReport>& reports, Instant now) {
  if (reports.size() < 3) return std::nullopt;
  const EfaReport* worst = nullptr;
  double most = 0, next = 0, whole = 0;
  for (const EfaReport& report : reports) {
    const double rate = sum(report, kRemote, now);
    whole += rate;
    if (rate > most) {
      next = most;
      most = rate;
      worst = &report;
    } else {
      next = std::max(next, rate);
    }
  }
  // One that complains alone may as well be right about a silent peer.
  if (worst == nullptr || next <= 0 || most < whole / 2 || most < 2 * next) return std::nullopt;
  return blame(*worst, "has " + per_second(most) + " of " + per_second(whole) + " lost-peer events of the job");
}

}  // namespace

std::optional<EfaBlame> blame_efa(const std::vector<EfaReport>& reports, Instant now) {
  if (reports.size() < 2) return std::nullopt;
  if (auto found = by_reachability(reports)) return found;
  if (auto found = by_own_errors(reports, now)) return found;
  return by_remote_errors(reports, now);
}

}  // namespace pitcrew::control
