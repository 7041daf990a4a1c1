#include "lib/net/psk_context.hpp"

namespace pitcrew::net::internal {

namespace {

constexpr unsigned char kAes128GcmSha256[] = {0x13, 0x01};  // RFC 8446, B.4

SSL_SESSION* session_of(SSL* ssl, const std::string& key) {
  const SSL_CIPHER* cipher = SSL_CIPHER_find(ssl, kAes128GcmSha256);
  SSL_SESSION* session = SSL_SESSION_new();
  const bool made =
      session != nullptr && cipher != nullptr &&
      SSL_SESSION_set1_master_key(session, reinterpret_cast<const unsigned char*>(key.data()), key.size()) == 1 &&
      SSL_SESSION_set_cipher(session, cipher) == 1 && SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) == 1;
  if (made) return session;
  SSL_SESSION_free(session);
  return nullptr;
}

PskHandshake& handshake_of(SSL* ssl) { return *static_cast<PskHandshake*>(SSL_get_app_data(ssl)); }

// The server's: which key belongs to the identity. None: the handshake goes on without a key and fails for want of a
// certificate.
int find_session(SSL* ssl, const unsigned char* identity, size_t size, SSL_SESSION** session) {
  PskHandshake& handshake = handshake_of(ssl);
  *session = nullptr;
  const auto found = handshake.keys->find(std::string_view(reinterpret_cast<const char*>(identity), size));
  if (found == handshake.keys->end()) return 1;
  *session = session_of(ssl, found->second);
  handshake.identity = found->first;
  return *session != nullptr ? 1 : 0;
}

// The client's.
int use_session(SSL* ssl, const EVP_MD* digest, const unsigned char** identity, size_t* size, SSL_SESSION** session) {
  const PskHandshake& handshake = handshake_of(ssl);
  *session = nullptr;
  if (digest != nullptr && EVP_MD_get_type(digest) != NID_sha256) return 1;
  *session = session_of(ssl, handshake.keys->begin()->second);
  *identity = reinterpret_cast<const unsigned char*>(handshake.identity.data());
  *size = handshake.identity.size();
  return *session != nullptr ? 1 : 0;
}

Result<TlsState> start(SSL_CTX* context, PskHandshake handshake) {
  TlsState tls{SslPtr(SSL_new(context)), nullptr};
  if (!tls.ssl) return ssl_error("start TLS with a pre-shared key");
  auto data = std::make_shared<PskHandshake>(std::move(handshake));
  SSL_set_app_data(tls.ssl.get(), data.get());
  tls.data = std::move(data);
  return tls;
}

}  // namespace

Status check(const PskKey& key) {
  if (key.identity.empty() || key.identity.size() > 128) {
    return Error(Code::kInvalidArgument, "pre-shared key: its identity must have 1 to 128 bytes");
  }
  if (key.key.size() != 32) {
    return Error(Code::kInvalidArgument,
                 "pre-shared key '" + key.identity + "': it has " + std::to_string(key.key.size()) + " bytes, not 32");
  }
  return {};
}

SslContextPtr psk_context(bool server) {
  SslContextPtr context = make_context(server);
  SSL_CTX* raw = context.get();
  SSL_CTX_set_min_proto_version(raw, TLS1_3_VERSION);
  const int chosen = SSL_CTX_set_ciphersuites(raw, "TLS_AES_128_GCM_SHA256");
  PITCREW_INVARIANT(chosen == 1, "OpenSSL lacks TLS_AES_128_GCM_SHA256");
  if (server) {
    SSL_CTX_set_psk_find_session_callback(raw, find_session);
  } else {
    // Without roots: a server that comes with a certificate in place of the key is refused. (A server of ours has no
    // certificate, so that nothing but a key completes its handshake.)
    SSL_CTX_set_verify(raw, SSL_VERIFY_PEER, nullptr);
    SSL_CTX_set_psk_use_session_callback(raw, use_session);
  }
  return context;
}

Result<TlsState> psk_server_tls(const SslContextPtr& context, std::shared_ptr<const PskKeys> keys) {
  PITCREW_ASSIGN(TlsState tls, start(context.get(), {std::move(keys), ""}));
  SSL_set_accept_state(tls.ssl.get());
  return tls;
}

Result<TlsState> psk_client_tls(const PskKey& key) {
  PITCREW_TRY(check(key));
  const SslContextPtr context = psk_context(false);
  auto keys = std::make_shared<const PskKeys>(PskKeys{{key.identity, key.key}});
  PITCREW_ASSIGN(TlsState tls, start(context.get(), {std::move(keys), key.identity}));
  SSL_set_connect_state(tls.ssl.get());
  return tls;
}

}  // namespace pitcrew::net::internal
