#pragma once

// Internal to lib/net: TLS 1.3 with external pre-shared keys (RFC 8446, 4.2.11).

#include <map>
#include <memory>
#include <string>

#include "lib/net/psk.hpp"
#include "lib/net/tls_context.hpp"

namespace pitcrew::net::internal {

using PskKeys = std::map<std::string, std::string, std::less<>>;  // identity → key

// TlsState::data of such a connection.
struct PskHandshake {
  std::shared_ptr<const PskKeys> keys;
  std::string identity;  // once the peer has named one that is known
};

Status check(const PskKey& key);
SslContextPtr psk_context(bool server);
Result<TlsState> psk_server_tls(const SslContextPtr& context, std::shared_ptr<const PskKeys> keys);
Result<TlsState> psk_client_tls(const PskKey& key);

}  // namespace pitcrew::net::internal
