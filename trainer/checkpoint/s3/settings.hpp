#pragma once

#include <functional>
#include <map>
#include <string>

#include "lib/base/result.hpp"

namespace pitcrew::trainer::s3 {

// Variables of a process; absent and empty are the same.
using Variables = std::function<std::string(const char* name)>;

// An endpoint taken apart: "https://s3.eu-west-1.amazonaws.com:443/base" → scheme, host (with the port, where it isn't
// the scheme's own) and path ("/base", without a slash at its end).
struct Endpoint {
  std::string scheme;
  std::string host;
  std::string path;
  std::string url() const { return scheme + "://" + host; }
};
Result<Endpoint> parse_endpoint(const std::string& url, const std::string& source);

// s3://bucket/prefix, and where that bucket is.
struct Location {
  std::string path;  // as it was given, without slashes at its end
  std::string bucket;
  std::string prefix;  // "" or "a/b/", with the slash at its end
  std::string region;
  Endpoint endpoint;     // of the bucket
  std::string root;      // before a key in the request's path: "/" or "/bucket/"
  std::string kms_key;   // of SSE-KMS; empty: the bucket's default
  bool encrypt = false;  // ask for SSE-KMS
};

// From the path and AWS's variables: AWS_REGION or AWS_DEFAULT_REGION, AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL;
// PITCREW_S3_KMS_KEY: an ARN, an alias, or aws:kms for AWS's own key. kInvalidArgument, with the remedy.
Result<Location> locate(const std::string& path, const Variables& variables);

// amazonaws.com, or what a region of another partition has.
std::string dns_suffix(const std::string& region);

}  // namespace pitcrew::trainer::s3
