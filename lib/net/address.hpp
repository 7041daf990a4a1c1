#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "lib/base/result.hpp"
#include "lib/base/time.hpp"

namespace pitcrew::net {

using pitcrew::to_string;  // the overload below would hide those of lib/base

// Where a socket is: a numeric IPv4 or IPv6 address and a port. Names are never resolved.
struct Address {
  std::string host;   // "10.0.0.7", "::1"; for listening also "" or "::" (every interface, IPv4 and IPv6)
  uint16_t port = 0;  // 0, for listening only: any free port

  // "10.0.0.7:8443", "[::1]:8443".
  static Result<Address> parse(std::string_view text);
  bool operator==(const Address&) const = default;
};
std::string to_string(const Address& address);

}  // namespace pitcrew::net
