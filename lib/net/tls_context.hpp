#pragma once

// Internal to lib/net: OpenSSL's objects behind the values of tls.hpp.

#include <memory>

#include <openssl/ssl.h>

#include "lib/net/tls.hpp"

namespace pitcrew::net::internal {

template <auto Free>
struct Freer {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
using SslPtr = std::unique_ptr<SSL, Freer<SSL_free>>;
using SslContextPtr = std::shared_ptr<SSL_CTX>;

// One connection's TLS: its SSL, and what its callbacks look at (kept as long as the SSL).
struct TlsState {
  SslPtr ssl;
  std::shared_ptr<void> data;
};

// What OpenSSL put on this thread's error queue, emptied: "reason; reason".
std::string take_ssl_errors();
Error ssl_error(std::string_view what);

// A context with what all of ours share: TLS 1.2 or newer, no tickets, no session cache, no buffers kept while idle.
SslContextPtr make_context(bool server);

Result<SslContextPtr> server_context(const TlsServerIdentity& identity);
Result<TlsState> server_tls(const SslContextPtr& context);
// Believes the bundle alone and checks the name.
Result<TlsState> client_tls(const TlsTrust& trust);
// One more connection of a client.
Result<TlsState> client_tls(const TlsClient& client);

}  // namespace pitcrew::net::internal
