#include "lib/kube/types/lease.hpp"

#include "lib/kube/types/fields.hpp"

namespace pitcrew::kube {

const ResourceType& Lease::type() {
  static const ResourceType kType{"coordination.k8s.io", "v1", "Lease", "leases", true};
  return kType;
}

Result<Lease> Lease::decode(const Json& json) {
  Lease lease;
  PITCREW_TRY(fields::read_meta(json, type(), lease.metadata));
  if (const Json* spec = fields::find(json, "spec")) {
    fields::read(*spec, "holderIdentity", lease.holder);
    fields::read(*spec, "leaseDurationSeconds", lease.duration_seconds);
    fields::read(*spec, "leaseTransitions", lease.transitions);
    fields::read(*spec, "acquireTime", lease.acquired);
    fields::read(*spec, "renewTime", lease.renewed);
  }
  return lease;
}

Json Lease::encode() const {
  Json json = fields::envelope(type(), metadata);
  Json& spec = json["spec"] = Json::object();
  spec["holderIdentity"] = holder;
  if (duration_seconds > 0) spec["leaseDurationSeconds"] = duration_seconds;
  spec["leaseTransitions"] = transitions;
  // metav1.MicroTime
  if (acquired) spec["acquireTime"] = to_rfc3339(*acquired, 6);
  if (renewed) spec["renewTime"] = to_rfc3339(*renewed, 6);
  return json;
}

}  // namespace pitcrew::kube
