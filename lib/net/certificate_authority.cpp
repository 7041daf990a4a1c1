#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "lib/net/address.hpp"
#include "lib/net/crypto.hpp"
#include "lib/net/tls.hpp"
#include "lib/net/tls_context.hpp"

namespace pitcrew::net {

namespace {

using internal::Freer;
using internal::ssl_error;
using BioPtr = std::unique_ptr<BIO, Freer<BIO_free_all>>;
using X509Ptr = std::unique_ptr<X509, Freer<X509_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY_free>>;
using ExtensionPtr = std::unique_ptr<X509_EXTENSION, Freer<X509_EXTENSION_free>>;

std::string text_of(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return std::string(data, static_cast<size_t>(size));
}

std::string pem_of(X509* certificate) {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509(bio.get(), certificate);
  return text_of(bio.get());
}

std::string pem_of(EVP_PKEY* key) {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_PKCS8PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr);
  return text_of(bio.get());
}

X509Ptr read_certificate(const std::string& pem) {
  const BioPtr bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  return X509Ptr(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
}

KeyPtr read_key(const std::string& pem) {
  const BioPtr bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  return KeyPtr(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
}

time_t unix_seconds(Instant instant) {
  return static_cast<time_t>(std::chrono::duration_cast<seconds>(instant.since_epoch()).count());
}

struct Draft {
  X509Ptr certificate;
  KeyPtr key;
};

// A certificate with a key of its own, unsigned: serial, times, subject.
Result<Draft> draft(const std::string& common_name, Validity validity) {
  if (validity.not_after <= validity.not_before) {
    return Error(Code::kInvalidArgument, "make a certificate for " + common_name + ": it would end before it begins");
  }
  Draft made{X509Ptr(X509_new()), KeyPtr(EVP_EC_gen("P-256"))};
  if (!made.certificate || !made.key) return ssl_error("make a key for " + common_name);
  X509* certificate = made.certificate.get();
  X509_set_version(certificate, X509_VERSION_3);
  // 126 random bits: positive, and unique among all that this authority issues (RFC 5280, 4.1.2.2).
  std::string serial = random_bytes(16);
  serial[0] = static_cast<char>((serial[0] & 0x3f) | 0x40);
  const std::unique_ptr<BIGNUM, Freer<BN_free>> number(
      BN_bin2bn(reinterpret_cast<const unsigned char*>(serial.data()), static_cast<int>(serial.size()), nullptr));
  BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate));
  ASN1_TIME_set(X509_getm_notBefore(certificate), unix_seconds(validity.not_before));
  ASN1_TIME_set(X509_getm_notAfter(certificate), unix_seconds(validity.not_after));
  X509_NAME* name = X509_get_subject_name(certificate);
  // A common name holds at most 64 characters (RFC 5280, A.1).
  const std::string shown = common_name.substr(0, 64);
  if (X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, reinterpret_cast<const unsigned char*>(shown.data()),
                                 static_cast<int>(shown.size()), -1, 0) != 1 ||
      X509_set_pubkey(certificate, made.key.get()) != 1) {
    return ssl_error("make a certificate for " + common_name);
  }
  return made;
}

Status add_extension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const ExtensionPtr extension(X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str()));
  if (!extension || X509_add_ext(certificate, extension.get(), -1) != 1) {
    return ssl_error("put '" + value + "' into a certificate");
  }
  return {};
}

Result<Instant> instant_of(const ASN1_TIME* time) {
  struct tm parts {};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return ssl_error("read a certificate's time");
  return Instant(seconds(timegm(&parts)));
}

// Names go into OpenSSL's comma-separated extension syntax.
bool is_dns_name(const std::string& name) {
  return !name.empty() && name.size() <= 253 &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._*") ==
             std::string::npos;
}

}  // namespace

Result<CertificateAuthority> CertificateAuthority::create(const std::string& common_name, Validity validity) {
  PITCREW_ASSIGN(Draft root, draft(common_name, validity));
  X509* certificate = root.certificate.get();
  X509_set_issuer_name(certificate, X509_get_subject_name(certificate));
  PITCREW_TRY(add_extension(certificate, certificate, NID_basic_constraints, "critical,CA:TRUE,pathlen:0"));
  PITCREW_TRY(add_extension(certificate, certificate, NID_key_usage, "critical,keyCertSign,cRLSign"));
  PITCREW_TRY(add_extension(certificate, certificate, NID_subject_key_identifier, "hash"));
  if (X509_sign(certificate, root.key.get(), EVP_sha256()) == 0) return ssl_error("sign the CA certificate");
  return CertificateAuthority(pem_of(certificate), pem_of(root.key.get()));
}

Result<CertificateAuthority> CertificateAuthority::load(std::string certificate_pem, std::string key_pem) {
  const X509Ptr certificate = read_certificate(certificate_pem);
  if (!certificate) return ssl_error("read the CA certificate");
  const KeyPtr key = read_key(key_pem);
  if (!key) return ssl_error("read the CA key");
  if (X509_check_private_key(certificate.get(), key.get()) != 1)
    return ssl_error("match the CA key with its certificate");
  if (X509_check_ca(certificate.get()) != 1) {
    return Error(Code::kInvalidArgument, "load the certificate authority: the certificate is not a CA's");
  }
  return CertificateAuthority(std::move(certificate_pem), std::move(key_pem));
}

Result<TlsServerIdentity> CertificateAuthority::issue(const ServerNames& names, Validity validity) const {
  std::string alternatives;
  for (const std::string& name : names.dns) {
    if (!is_dns_name(name)) return Error(Code::kInvalidArgument, "issue a certificate: '" + name + "' is no DNS name");
    alternatives += (alternatives.empty() ? "DNS:" : ",DNS:") + name;
  }
  for (const std::string& ip : names.ips) {
    const auto address = Address::parse(ip.find(':') == std::string::npos ? ip + ":1" : "[" + ip + "]:1");
    if (!address) return Error(Code::kInvalidArgument, "issue a certificate: '" + ip + "' is no IP address");
    alternatives += (alternatives.empty() ? "IP:" : ",IP:") + ip;
  }
  if (alternatives.empty())
    return Error(Code::kInvalidArgument, "issue a certificate: neither a DNS name nor an IP address");
  const X509Ptr root = read_certificate(certificate_pem_);
  const KeyPtr root_key = read_key(key_pem_);
  if (!root || !root_key) return ssl_error("read the certificate authority");
  PITCREW_ASSIGN(Draft leaf, draft(names.dns.empty() ? names.ips.front() : names.dns.front(), validity));
  X509* certificate = leaf.certificate.get();
  X509_set_issuer_name(certificate, X509_get_subject_name(root.get()));
  PITCREW_TRY(add_extension(certificate, root.get(), NID_basic_constraints, "critical,CA:FALSE"));
  PITCREW_TRY(add_extension(certificate, root.get(), NID_key_usage, "critical,digitalSignature"));
  PITCREW_TRY(add_extension(certificate, root.get(), NID_ext_key_usage, "serverAuth"));
  PITCREW_TRY(add_extension(certificate, root.get(), NID_subject_key_identifier, "hash"));
  PITCREW_TRY(add_extension(certificate, root.get(), NID_authority_key_identifier, "keyid"));
  PITCREW_TRY(add_extension(certificate, root.get(), NID_subject_alt_name, alternatives));
  if (X509_sign(certificate, root_key.get(), EVP_sha256()) == 0) return ssl_error("sign a server's certificate");
  return TlsServerIdentity{pem_of(certificate), pem_of(leaf.key.get())};
}

Result<TlsClientIdentity> CertificateAuthority::issue_client(const std::string& common_name, Validity validity) const {
  const X509Ptr root = read_certificate(certificate_pem_);
  const KeyPtr root_key = read_key(key_pem_);
  if (!root || !root_key) return ssl_error("read the certificate authority");
  PITCREW_ASSIGN(Draft leaf, draft(common_name, validity));
  X509* certificate = leaf.certificate.get();
  X509_set_issuer_name(certificate, X509_get_subject_name(root.get()));
  PITCREW_TRY(add_extension(certificate, root.get(), NID_basic_constraints, "critical,CA:FALSE"));
  PITCREW_TRY(add_extension(certificate, root.get(), NID_key_usage, "critical,digitalSignature"));
  PITCREW_TRY(add_extension(certificate, root.get(), NID_ext_key_usage, "clientAuth"));
  PITCREW_TRY(add_extension(certificate, root.get(), NID_subject_key_identifier, "hash"));
  PITCREW_TRY(add_extension(certificate, root.get(), NID_authority_key_identifier, "keyid"));
  if (X509_sign(certificate, root_key.get(), EVP_sha256()) == 0) return ssl_error("sign a client's certificate");
  return TlsClientIdentity{pem_of(certificate), pem_of(leaf.key.get())};
}

Result<Validity> validity_of(const std::string& certificate_pem) {
  const X509Ptr certificate = read_certificate(certificate_pem);
  if (!certificate) return ssl_error("read a certificate");
  PITCREW_ASSIGN(const Instant from, instant_of(X509_get0_notBefore(certificate.get())));
  PITCREW_ASSIGN(const Instant until, instant_of(X509_get0_notAfter(certificate.get())));
  return Validity{from, until};
}

}  // namespace pitcrew::net
