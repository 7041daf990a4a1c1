#include "lib/kube/types/disruption_budget.hpp"

#include "lib/kube/types/fields.hpp"

namespace pitcrew::kube {
namespace {

// A number or a percentage.
std::string int_or_string(const Json& spec, const char* key) {
  const Json* value = fields::find(spec, key);
  if (value == nullptr) return "";
  return value->is_string() ? value->get<std::string>() : value->dump();
}

}  // namespace

const ResourceType& DisruptionBudget::type() {
  static const ResourceType kType{"policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", true};
  return kType;
}

Result<DisruptionBudget> DisruptionBudget::decode(const Json& json) {
  DisruptionBudget budget;
  PITCREW_TRY(fields::read_meta(json, type(), budget.metadata));
  if (const Json* spec = fields::find(json, "spec")) {
    budget.min_available = int_or_string(*spec, "minAvailable");
    budget.max_unavailable = int_or_string(*spec, "maxUnavailable");
    fields::read(*spec, "unhealthyPodEvictionPolicy", budget.unhealthy_eviction);
  }
  return budget;
}

}  // namespace pitcrew::kube
