#include "tests/bench/operator/swarm/endpoint_slice.hpp"

#include "lib/kube/types/fields.hpp"

namespace pitcrew::swarm {

namespace fields = kube::fields;

const ResourceType& EndpointSlice::type() {
  static const ResourceType kType{"discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", true};
  return kType;
}

Result<EndpointSlice> EndpointSlice::decode(const Json& json) {
  EndpointSlice slice;
  PITCREW_TRY(fields::read_meta(json, type(), slice.metadata));
  fields::each(fields::find(json, "endpoints"), [&](const Json& endpoint) {
    bool ready = true;
    if (const Json* conditions = fields::find(endpoint, "conditions")) fields::read(*conditions, "ready", ready);
    std::vector<std::string> addresses;
    fields::read(endpoint, "addresses", addresses);
    if (ready) slice.addresses.insert(slice.addresses.end(), addresses.begin(), addresses.end());
  });
  fields::each(fields::find(json, "ports"), [&](const Json& entry) {
    int64_t port = 0;
    fields::read(entry, "port", port);
    if (port > 0 && port < 65536) slice.ports.push_back(static_cast<uint16_t>(port));
  });
  return slice;
}

std::optional<net::Address> destination(const std::vector<EndpointSlice>& slices, const std::string& host) {
  for (const EndpointSlice& slice : slices) {
    if (slice.addresses.empty() || slice.ports.empty()) continue;
    return net::Address{host.empty() ? slice.addresses.front() : host, slice.ports.front()};
  }
  return std::nullopt;
}

}  // namespace pitcrew::swarm
