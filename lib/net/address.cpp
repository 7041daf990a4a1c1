#include "lib/net/address.hpp"

#include <charconv>

#include "lib/net/io.hpp"

namespace pitcrew::net {

Result<Address> Address::parse(std::string_view text) {
  const auto wrong = [&](std::string_view why) {
    return Error(Code::kInvalidArgument,
                 "address '" + std::string(text) + "': " + std::string(why) + "; write 10.0.0.7:8443 or [::1]:8443");
  };
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return wrong("the port is missing");
  std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return wrong("an IPv6 address needs brackets");
  }
  Address address;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), address.port);
  if (error != std::errc() || end != port.data() + port.size()) return wrong("the port is no number up to 65535");
  address.host = host;
  if (!internal::endpoint_of(address)) return wrong("the host is no numeric address");
  return address;
}

std::string to_string(const Address& address) {
  const bool v6 = address.host.find(':') != std::string::npos;
  return (v6 ? "[" + address.host + "]" : address.host) + ":" + std::to_string(address.port);
}

namespace internal {

Result<tcp::endpoint> endpoint_of(const Address& address) {
  if (address.host.empty()) return tcp::endpoint(asio::ip::address_v6::any(), address.port);
  ErrorCode error;
  const auto ip = asio::ip::make_address(address.host, error);
  if (error) {
    return Error(Code::kInvalidArgument,
                 "'" + address.host + "' is no numeric IPv4 or IPv6 address (names are not resolved)");
  }
  return tcp::endpoint(ip, address.port);
}

Address address_of(const tcp::endpoint& endpoint) {
  asio::ip::address ip = endpoint.address();
  if (ip.is_v6() && ip.to_v6().is_v4_mapped()) ip = asio::ip::make_address_v4(asio::ip::v4_mapped, ip.to_v6());
  return {ip.to_string(), endpoint.port()};
}

}  // namespace internal
}  // namespace pitcrew::net
