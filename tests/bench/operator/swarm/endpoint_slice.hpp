#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/object_meta.hpp"
#include "lib/net/address.hpp"

namespace pitcrew::swarm {

// discovery.k8s.io/v1 EndpointSlice, as far as a proxy reads it.
struct EndpointSlice {
  ObjectMeta metadata;
  std::vector<std::string> addresses;  // of endpoints that are ready
  std::vector<uint16_t> ports;
  bool operator==(const EndpointSlice&) const = default;

  static const ResourceType& type();
  static Result<EndpointSlice> decode(const Json& json);
};

// Where a Service's connections end by these slices: the first address and port of any. `host` takes the address's
// place where it isn't empty: the operators of a bench all run on this machine.
std::optional<net::Address> destination(const std::vector<EndpointSlice>& slices, const std::string& host);

}  // namespace pitcrew::swarm
