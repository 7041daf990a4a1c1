#include "operator/decide/avoid.hpp"

#include <algorithm>
#include <map>

namespace pitcrew::control {

void update_avoided(Situation& situation) {
  const api::RecoverySpec& recovery = situation.spec.recovery;
  std::map<std::pair<std::string, api::Cause>, uint32_t> counts;
  std::map<std::string, Instant> suspects;
  for (const api::FailureRecord& failure : situation.status.failures) {
    if (failure.node.empty() || situation.now - failure.time >= recovery.restarts.window) continue;
    if (failure.cause == api::Cause::kPlanned || failure.cause == api::Cause::kProgram) continue;
    const bool certain = failure.cause == api::Cause::kGpuFault || failure.cause == api::Cause::kEfaFault;
    const uint32_t count = ++counts[{failure.node, failure.cause}];
    if (recovery.avoid_after_failures == 0 && !certain) continue;
    if (certain || count >= recovery.avoid_after_failures) suspects[failure.node] = failure.time;
  }
  std::vector<std::pair<Instant, std::string>> newest;
  for (const auto& [node, time] : suspects) newest.emplace_back(time, node);
  std::sort(newest.rbegin(), newest.rend());
  if (newest.size() > recovery.avoid_limit) newest.resize(recovery.avoid_limit);

  std::vector<std::string> avoided;
  for (auto& [time, node] : newest) avoided.push_back(std::move(node));
  std::sort(avoided.begin(), avoided.end());
  for (const std::string& node : avoided) {
    const auto& before = situation.status.avoided_nodes;
    if (std::find(before.begin(), before.end(), node) == before.end()) {
      situation.notice(true, "NodeAvoided", "AvoidNode",
                       "node " + node + " failed too often for this job; its new pods go elsewhere");
    }
  }
  situation.status.avoided_nodes = std::move(avoided);
}

}  // namespace pitcrew::control
