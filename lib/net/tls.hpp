#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/result.hpp"
#include "lib/base/time.hpp"

namespace pitcrew::net {

// What a server shows: its certificate (with intermediates, leaf first) and key, as PEM.
struct TlsServerIdentity {
  std::string certificate_pem;
  std::string key_pem;
  std::string client_ca_pem;  // set: only clients with a certificate of these roots get in
};

// What a client shows to a server that asks for a certificate, as PEM, leaf first.
struct TlsClientIdentity {
  std::string certificate_pem;
  std::string key_pem;
  bool operator==(const TlsClientIdentity&) const = default;
};

// Whom a client believes: the roots in the bundle and no others (the system's store is never used), for the one name.
struct TlsTrust {
  std::string ca_bundle_pem;  // one or several certificates
  std::string server_name;    // a DNS name or an IP address that the certificate must carry
};

// How a client that makes many connections to one server does TLS.
struct TlsClientSettings {
  std::string ca_bundle_pem;  // the roots it believes; empty: the system's
  std::string server_name;    // a DNS name or an IP address that the certificate must carry
  bool insecure = false;      // believes anybody; for experiments
  std::optional<TlsClientIdentity> identity;
  bool operator==(const TlsClientSettings&) const = default;
};

// Those settings read and ready, shared by all connections of a client: parsing roots and keys anew for every
// connection costs more than its handshake. Immutable; used by one loop at a time.
class TlsClient {
 public:
  static Result<std::shared_ptr<const TlsClient>> make(const TlsClientSettings& settings);

  struct Impl;  // for lib/net's own sources
  explicit TlsClient(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  const Impl& impl() const { return *impl_; }

 private:
  std::shared_ptr<const Impl> impl_;
};
using TlsClientPtr = std::shared_ptr<const TlsClient>;

// From when until when a certificate holds; both ends are rounded to whole seconds.
struct Validity {
  Instant not_before;
  Instant not_after;
};

// What a server's certificate is good for.
struct ServerNames {
  std::vector<std::string> dns;
  std::vector<std::string> ips;  // numeric
};

// A root of our own (EC P-256, SHA-256) that issues server certificates. A value; thread-safe once made.
class CertificateAuthority {
 public:
  static Result<CertificateAuthority> create(const std::string& common_name, Validity validity);
  static Result<CertificateAuthority> load(std::string certificate_pem, std::string key_pem);

  const std::string& certificate_pem() const { return certificate_pem_; }
  const std::string& key_pem() const { return key_pem_; }
  Result<TlsServerIdentity> issue(const ServerNames& names, Validity validity) const;
  // For a client: Kubernetes takes the common name for the user's.
  Result<TlsClientIdentity> issue_client(const std::string& common_name, Validity validity) const;

 private:
  CertificateAuthority(std::string certificate_pem, std::string key_pem)
      : certificate_pem_(std::move(certificate_pem)), key_pem_(std::move(key_pem)) {}
  std::string certificate_pem_;
  std::string key_pem_;
};

// When the first certificate of the PEM text holds: what rotation is planned by.
Result<Validity> validity_of(const std::string& certificate_pem);

// Whether the identity's key belongs to its certificate and both can be read.
Status check(const TlsServerIdentity& identity);
// Whether the bundle has at least one certificate and all can be read, and the name isn't empty.
Status check(const TlsTrust& trust);

}  // namespace pitcrew::net
