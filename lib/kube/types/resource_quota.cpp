#include "lib/kube/types/resource_quota.hpp"

#include "lib/kube/types/fields.hpp"
#include "lib/kube/types/quantity.hpp"

namespace pitcrew::kube {

const ResourceType& ResourceQuota::type() {
  static const ResourceType kType{"", "v1", "ResourceQuota", "resourcequotas", true};
  return kType;
}

Result<ResourceQuota> ResourceQuota::decode(const Json& json) {
  ResourceQuota quota;
  PITCREW_TRY(fields::read_meta(json, type(), quota.metadata));
  if (const Json* spec = fields::find(json, "spec")) {
    fields::read(*spec, "scopes", quota.scopes);
    quota.scope_selector = fields::find(*spec, "scopeSelector") != nullptr;
    if (const Json* hard = fields::find(*spec, "hard")) add_quantities(*hard, quota.hard);
  }
  if (const Json* used = fields::find(json, "status", "used")) add_quantities(*used, quota.used);
  return quota;
}

}  // namespace pitcrew::kube
