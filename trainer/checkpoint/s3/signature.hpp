#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "lib/base/time.hpp"

namespace pitcrew::trainer::s3 {

// Keys as AWS hands them out; `token` is of temporary ones.
struct Keys {
  std::string id;
  std::string secret;
  std::string token;
};

// What of a request is signed. Headers have lower-case names; `host` must be among them.
struct SignedRequest {
  std::string method;
  std::string path;  // from the root, not encoded: "/bucket/a b"
  std::vector<std::pair<std::string, std::string>> query;
  std::map<std::string, std::string> headers;
  std::string payload_digest;  // hexadecimal SHA-256 of the body
};

// AWS Signature Version 4 ("Authenticating Requests (AWS Signature Version 4)", Amazon S3 API Reference): the headers
// to send besides, `authorization` last. `service`: s3 or sts.
std::map<std::string, std::string> sign(const SignedRequest& request, const Keys& keys, const std::string& region,
                                        const std::string& service, Instant now);

std::string sha256_hex(std::span<const std::byte> data);
std::string sha256_hex(std::string_view text);

// Percent-encoding of RFC 3986's reserved bytes, as the signature wants it; '/' stays where it separates.
std::string encode_uri(std::string_view text, bool keep_slashes);
// "a=1&b=", sorted by name and encoded.
std::string canonical_query(const std::vector<std::pair<std::string, std::string>>& query);

}  // namespace pitcrew::trainer::s3
