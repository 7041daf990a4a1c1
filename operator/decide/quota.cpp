#include "operator/decide/quota.hpp"

#include <algorithm>

#include "lib/kube/types/quantity.hpp"

namespace pitcrew::control {
namespace {

constexpr std::string_view kRequests = "requests.";
constexpr std::string_view kLimits = "limits.";

int64_t amount_of(const kube::Resources& resources, const std::string& name) {
  const auto found = resources.find(name);
  return found == resources.end() ? 0 : found->second;
}

// What one pod takes of a quota's line; 0 for lines that count other things.
int64_t taken_by_one(const PodShape& shape, const std::string& line) {
  if (line == "pods" || line == "count/pods") return 1000;
  if (line.starts_with(kRequests)) return amount_of(shape.requests, line.substr(kRequests.size()));
  if (line.starts_with(kLimits)) return amount_of(shape.limits, line.substr(kLimits.size()));
  return amount_of(shape.requests, line);  // "cpu" is requests.cpu
}

bool counts_our_pods(const kube::ResourceQuota& quota) {
  if (quota.scope_selector) return false;
  // Our pods have no deadline of their own; those without any request are BestEffort, which a gang is not.
  return std::all_of(quota.scopes.begin(), quota.scopes.end(),
                     [](const std::string& scope) { return scope == "NotTerminating" || scope == "NotBestEffort"; });
}

}  // namespace

std::string quota_refusal(const Situation& situation, uint32_t count) {
  for (const auto& quota : situation.in.quotas) {
    if (!counts_our_pods(*quota)) continue;
    for (const auto& [line, hard] : quota->hard) {
      const int64_t one = taken_by_one(situation.in.shape, line);
      if (one <= 0) continue;
      const int64_t left = std::max<int64_t>(hard - amount_of(quota->used, line), 0);
      if (left / one >= count) continue;
      return "needs " + kube::format_quantity(one * count) + " of " + line + " for " + std::to_string(count) +
             (count == 1 ? " pod" : " pods") + ", the ResourceQuota " + quota->metadata.name + " leaves " +
             kube::format_quantity(left) + " of " + kube::format_quantity(hard);
    }
  }
  return {};
}

}  // namespace pitcrew::control
