#include "trainer/checkpoint/s3/signature.hpp"

#include <algorithm>
#include <cctype>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "lib/base/result.hpp"

namespace pitcrew::trainer::s3 {
namespace {

constexpr size_t kDigest = 32;

std::string hex(const unsigned char* bytes, size_t size) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(2 * size);
  for (size_t i = 0; i < size; ++i) {
    text += kDigits[bytes[i] >> 4];
    text += kDigits[bytes[i] & 15];
  }
  return text;
}

std::string hmac(std::string_view key, std::string_view text) {
  unsigned char digest[kDigest];
  unsigned int size = kDigest;
  const void* done = HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
                          reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest, &size);
  PITCREW_INVARIANT(done != nullptr && size == kDigest, "OpenSSL can't compute HMAC-SHA256");
  return {reinterpret_cast<const char*>(digest), kDigest};
}

// "20130524T000000Z"
std::string amz_date(Instant now) {
  std::string text = to_rfc3339(now);
  std::erase_if(text, [](char c) { return c == '-' || c == ':'; });
  return text;
}

}  // namespace

std::string sha256_hex(std::span<const std::byte> data) {
  unsigned char digest[kDigest];
  unsigned int size = kDigest;
  const int done = EVP_Digest(data.data(), data.size(), digest, &size, EVP_sha256(), nullptr);
  PITCREW_INVARIANT(done == 1 && size == kDigest, "OpenSSL can't compute SHA-256");
  return hex(digest, size);
}

std::string sha256_hex(std::string_view text) { return sha256_hex(std::as_bytes(std::span(text))); }

std::string encode_uri(std::string_view text, bool keep_slashes) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string encoded;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0 || c == '-' || c == '_' || c == '.' || c == '~' || (c == '/' && keep_slashes)) {
      encoded += c;
    } else {
      encoded += '%';
      encoded += kDigits[byte >> 4];
      encoded += kDigits[byte & 15];
    }
  }
  return encoded;
}

std::string canonical_query(const std::vector<std::pair<std::string, std::string>>& query) {
  std::vector<std::pair<std::string, std::string>> encoded;
  for (const auto& [name, value] : query) encoded.emplace_back(encode_uri(name, false), encode_uri(value, false));
  std::sort(encoded.begin(), encoded.end());
  std::string text;
  for (const auto& [name, value] : encoded) text += (text.empty() ? "" : "&") + name + "=" + value;
  return text;
}

std::map<std::string, std::string> sign(const SignedRequest& request, const Keys& keys, const std::string& region,
                                        const std::string& service, Instant now) {
  const std::string time = amz_date(now);
  const std::string day = time.substr(0, 8);
  std::map<std::string, std::string> added = {{"x-amz-date", time}, {"x-amz-content-sha256", request.payload_digest}};
  if (!keys.token.empty()) added["x-amz-security-token"] = keys.token;
  std::map<std::string, std::string> headers = request.headers;
  headers.insert(added.begin(), added.end());

  std::string lines, names;
  for (const auto& [name, value] : headers) {
    lines += name + ":" + value + "\n";
    names += (names.empty() ? "" : ";") + name;
  }
  const std::string canonical = request.method + "\n" + encode_uri(request.path, true) + "\n" +
                                canonical_query(request.query) + "\n" + lines + "\n" + names + "\n" +
                                request.payload_digest;
  const std::string scope = day + "/" + region + "/" + service + "/aws4_request";
  const std::string to_sign = "AWS4-HMAC-SHA256\n" + time + "\n" + scope + "\n" + sha256_hex(canonical);
  const std::string key = hmac(hmac(hmac(hmac("AWS4" + keys.secret, day), region), service), "aws4_request");
  const std::string signature = hmac(key, to_sign);
  added["authorization"] =
      "AWS4-HMAC-SHA256 Credential=" + keys.id + "/" + scope + ",SignedHeaders=" + names +
      ",Signature=" + hex(reinterpret_cast<const unsigned char*>(signature.data()), signature.size());
  return added;
}

}  // namespace pitcrew::trainer::s3
