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
  PITCREW_ASSIGN(auto chain, read_certificates(identity.certificate_pem, "read the server's certificate"));
  if (SSL_CTX_use_certificate(context.get(), chain.front().get()) != 1)
    return ssl_error("use the server's certificate");
  for (size_t i = 1; i < chain.size(); ++i) {
    if (SSL_CTX_add1_chain_cert(context.get(), chain[i].get()) != 1)
      return ssl_error("use the server's certificate chain");
  }
  const BioPtr bio = bio_over(identity.key_pem);
  const KeyPtr key(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
  if (!key) return ssl_error("read the server's private key");
  // Refuses a key that belongs to another certificate.
  if (SSL_CTX_use_PrivateKey(context.get(), key.get()) != 1) return ssl_error("use the server's private key");
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
  PITCREW_ASSIGN(auto roots, read_certificates(trust.ca_bundle_pem, "read the CA bundle"));
  X509_STORE* store = SSL_CTX_get_cert_store(context.get());
  for (const X509Ptr& root : roots) {
    if (X509_STORE_add_cert(store, root.get()) != 1) return ssl_error("use the CA bundle");
  }
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  TlsState tls{SslPtr(SSL_new(context.get())), nullptr};
  if (!tls.ssl) return ssl_error("start TLS");
  SSL* ssl = tls.ssl.get();
  const std::string& name = trust.server_name;
  if (is_ip(name)) {
    if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name.c_str()) != 1)
      return ssl_error("expect the address " + name);
  } else {
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (SSL_set1_host(ssl, name.c_str()) != 1 || SSL_set_tlsext_host_name(ssl, name.c_str()) != 1) {
      return ssl_error("expect the server name '" + name + "'");
    }
  }
  SSL_set_connect_state(ssl);
  return tls;
}

}  // namespace internal
}  // namespace pitcrew::net
