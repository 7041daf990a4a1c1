#include "lib/net/tls_context.hpp"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

namespace pitcrew::net {

namespace {

using BioPtr = std::unique_ptr<BIO, internal::Freer<BIO_free_all>>;
using X509Ptr = std::unique_ptr<X509, internal::Freer<X509_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, internal::Freer<EVP_PKEY_free>>;

BioPtr bio_over(const std::string& text) { return BioPtr(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }

Result<std::vector<X509Ptr>> read_certificates(const std::string& pem, std::string_view what) {
  std::vector<X509Ptr> certificates;
  const BioPtr bio = bio_over(pem);
  ERR_clear_error();
  while (X509* certificate = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr))
    certificates.emplace_back(certificate);
  const unsigned long last = ERR_peek_last_error();
  if (last != 0 && ERR_GET_REASON(last) != PEM_R_NO_START_LINE) return internal::ssl_error(what);
  ERR_clear_error();
  if (certificates.empty())
    return Error(Code::kInvalidArgument, std::string(what) + ": there is no PEM certificate in it");
  return certificates;
}

bool is_ip(const std::string& name) {
  unsigned char ignored[16];
  return inet_pton(AF_INET, name.c_str(), ignored) == 1 || inet_pton(AF_INET6, name.c_str(), ignored) == 1;
}

}  // namespace

struct TlsClient::Impl {
  internal::SslContextPtr context;
  std::string server_name;  // empty: not checked
};

Status check(const TlsServerIdentity& identity) {
  auto context = internal::server_context(identity);
  if (!context) return context.error();
  return {};
}

Status check(const TlsTrust& trust) {
  if (trust.server_name.empty()) return Error(Code::kInvalidArgument, "TLS trust: the server's name is missing");
  auto certificates = read_certificates(trust.ca_bundle_pem, "read the CA bundle");
  if (!certificates) return certificates.error();
  return {};
}

namespace internal {

std::string take_ssl_errors() {
  std::string text;
  while (const unsigned long error = ERR_get_error()) {
    const char* reason = ERR_reason_error_string(error);
    text +=
        (text.empty() ? "" : "; ") + std::string(reason != nullptr ? reason : "OpenSSL error " + std::to_string(error));
  }
  return text.empty() ? "unknown OpenSSL error" : text;
}

Error ssl_error(std::string_view what) {
  return Error(Code::kInvalidArgument, std::string(what) + ": " + take_ssl_errors());
}

namespace {

Status use_identity(SSL_CTX* context, const std::string& certificate_pem, const std::string& key_pem,
                    const std::string& whose) {
  PITCREW_ASSIGN(auto chain, read_certificates(certificate_pem, "read the " + whose + "'s certificate"));
  if (SSL_CTX_use_certificate(context, chain.front().get()) != 1)
    return ssl_error("use the " + whose + "'s certificate");
  for (size_t i = 1; i < chain.size(); ++i) {
    if (SSL_CTX_add1_chain_cert(context, chain[i].get()) != 1)
      return ssl_error("use the " + whose + "'s certificate chain");
  }
  const BioPtr bio = bio_over(key_pem);
  const KeyPtr key(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
  if (!key) return ssl_error("read the " + whose + "'s private key");
  // Refuses a key that belongs to another certificate.
  if (SSL_CTX_use_PrivateKey(context, key.get()) != 1) return ssl_error("use the " + whose + "'s private key");
  return {};
}

Status believe(SSL_CTX* context, const std::string& bundle_pem, std::string_view what) {
  PITCREW_ASSIGN(auto roots, read_certificates(bundle_pem, what));
  X509_STORE* store = SSL_CTX_get_cert_store(context);
  for (const X509Ptr& root : roots) {
    if (X509_STORE_add_cert(store, root.get()) != 1) return ssl_error(what);
  }
  return {};
}

Status expect(SSL* ssl, const std::string& name) {
  if (is_ip(name)) {
    if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name.c_str()) != 1)
      return ssl_error("expect the address " + name);
    return {};
  }
  SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  if (SSL_set1_host(ssl, name.c_str()) != 1 || SSL_set_tlsext_host_name(ssl, name.c_str()) != 1)
    return ssl_error("expect the server name '" + name + "'");
  return {};
}

}  // namespace

SslContextPtr make_context(bool server) {
  SslContextPtr context(SSL_CTX_new(server ? TLS_server_method() : TLS_client_method()), SSL_CTX_free);
  PITCREW_INVARIANT(context != nullptr, "OpenSSL can't make a TLS context");
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_mode(context.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                      SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY);
  SSL_CTX_set_options(context.get(), SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(context.get(), 0);
  return context;
}

Result<SslContextPtr> server_context(const TlsServerIdentity& identity) {
  SslContextPtr context = make_context(true);
  PITCREW_TRY(use_identity(context.get(), identity.certificate_pem, identity.key_pem, "server"));
  if (!identity.client_ca_pem.empty()) {
    PITCREW_TRY(believe(context.get(), identity.client_ca_pem, "read the CA bundle for clients"));
    SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  }
  return context;
}

Result<TlsState> server_tls(const SslContextPtr& context) {
  TlsState tls{SslPtr(SSL_new(context.get())), nullptr};
  if (!tls.ssl) return ssl_error("start TLS");
  SSL_set_accept_state(tls.ssl.get());
  return tls;
}

Result<TlsState> client_tls(const TlsTrust& trust) {
  PITCREW_TRY(check(trust));
  const SslContextPtr context = make_context(false);
  PITCREW_TRY(believe(context.get(), trust.ca_bundle_pem, "read the CA bundle"));
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  TlsState tls{SslPtr(SSL_new(context.get())), nullptr};
  if (!tls.ssl) return ssl_error("start TLS");
  PITCREW_TRY(expect(tls.ssl.get(), trust.server_name));
  SSL_set_connect_state(tls.ssl.get());
  return tls;
}

Result<TlsState> client_tls(const TlsClient& client) {
  TlsState tls{SslPtr(SSL_new(client.impl().context.get())), nullptr};
  if (!tls.ssl) return ssl_error("start TLS");
  if (!client.impl().server_name.empty()) PITCREW_TRY(expect(tls.ssl.get(), client.impl().server_name));
  SSL_set_connect_state(tls.ssl.get());
  return tls;
}

}  // namespace internal

Result<TlsClientPtr> TlsClient::make(const TlsClientSettings& settings) {
  if (settings.server_name.empty() && !settings.insecure)
    return Error(Code::kInvalidArgument, "TLS: the server's name is missing");
  auto impl = std::make_shared<Impl>();
  impl->context = internal::make_context(false);
  SSL_CTX* context = impl->context.get();
  if (settings.insecure) {
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, nullptr);
  } else {
    impl->server_name = settings.server_name;
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
    if (!settings.ca_bundle_pem.empty()) {
      PITCREW_TRY(internal::believe(context, settings.ca_bundle_pem, "read the CA bundle"));
    } else if (SSL_CTX_set_default_verify_paths(context) != 1 ||
               SSL_CTX_load_verify_dir(context, X509_get_default_cert_dir()) != 1) {
      // The folder is named besides, as the variables that the first looks at may be set to nothing for another
      // library.
      return internal::ssl_error("read the system's CA bundle");
    }
  }
  if (settings.identity) {
    PITCREW_TRY(
        internal::use_identity(context, settings.identity->certificate_pem, settings.identity->key_pem, "client"));
  }
  return std::make_shared<const TlsClient>(std::move(impl));
}

}  // namespace pitcrew::net
