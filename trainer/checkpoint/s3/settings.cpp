#include "trainer/checkpoint/s3/settings.hpp"

#include <algorithm>
#include <cctype>

namespace pitcrew::trainer::s3 {
namespace {

// "Bucket naming rules", Amazon S3 User Guide.
bool is_bucket(std::string_view name) {
  const auto allowed = [](unsigned char c) { return std::islower(c) || std::isdigit(c) || c == '-' || c == '.'; };
  const auto edge = [](unsigned char c) { return std::islower(c) || std::isdigit(c); };
  return name.size() >= 3 && name.size() <= 63 && std::all_of(name.begin(), name.end(), allowed) &&
         edge(static_cast<unsigned char>(name.front())) && edge(static_cast<unsigned char>(name.back())) &&
         name.find("..") == std::string_view::npos;
}

std::string first_of(const Variables& variables, std::initializer_list<const char*> names, std::string& which) {
  for (const char* name : names) {
    if (std::string value = variables(name); !value.empty()) {
      which = name;
      return value;
    }
  }
  return {};
}

}  // namespace

Result<Endpoint> parse_endpoint(const std::string& url, const std::string& source) {
  const auto wrong = [&](const std::string& why) {
    return Error(Code::kInvalidArgument,
                 source + ": '" + url + "' " + why + "; write it like https://s3.example.com:9000");
  };
  Endpoint endpoint;
  const size_t colon = url.find("://");
  if (colon == std::string::npos) return wrong("has no scheme");
  endpoint.scheme = url.substr(0, colon);
  if (endpoint.scheme != "http" && endpoint.scheme != "https") return wrong("is neither http nor https");
  const size_t begin = colon + 3, slash = url.find('/', begin);
  endpoint.host = url.substr(begin, slash == std::string::npos ? slash : slash - begin);
  if (slash != std::string::npos) endpoint.path = url.substr(slash);
  while (endpoint.path.ends_with('/')) endpoint.path.pop_back();
  if (endpoint.host.empty() || endpoint.host.find_first_of("@ ?#") != std::string::npos) return wrong("names no host");
  const std::string_view own_port = endpoint.scheme == "http" ? ":80" : ":443";
  if (endpoint.host.ends_with(own_port)) endpoint.host.resize(endpoint.host.size() - own_port.size());
  return endpoint;
}

std::string dns_suffix(const std::string& region) {
  return region.starts_with("cn-") ? "amazonaws.com.cn" : "amazonaws.com";
}

Result<Location> locate(const std::string& path, const Variables& variables) {
  constexpr std::string_view kScheme = "s3://";
  Location location;
  location.path = path;
  while (location.path.size() > kScheme.size() && location.path.ends_with('/')) location.path.pop_back();
  const std::string rest = location.path.substr(std::min(kScheme.size(), location.path.size()));
  const size_t slash = rest.find('/');
  location.bucket = rest.substr(0, slash);
  if (!is_bucket(location.bucket)) {
    return Error(Code::kInvalidArgument, "checkpoint path " + path + ": '" + location.bucket +
                                             "' is no name of a bucket; write s3://bucket/prefix");
  }
  if (slash != std::string::npos) location.prefix = rest.substr(slash + 1) + "/";
  const std::string inside = "/" + location.prefix;
  if (inside.find("//") != std::string::npos || inside.find("/../") != std::string::npos ||
      inside.find("/./") != std::string::npos) {
    return Error(
        Code::kInvalidArgument,
        "checkpoint path " + path + ": the prefix must not contain '//', '.' or '..'; write s3://bucket/prefix");
  }

  std::string which;
  const std::string endpoint = first_of(variables, {"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"}, which);
  std::string ignored;
  location.region = first_of(variables, {"AWS_REGION", "AWS_DEFAULT_REGION"}, ignored);
  if (location.region.empty() && endpoint.empty()) {
    return Error(Code::kInvalidArgument, "checkpoint path " + path +
                                             ": the bucket's region is not known; set AWS_REGION in the container "
                                             "(a service account with a role gets it from EKS)");
  }
  if (location.region.empty()) location.region = "us-east-1";
  if (!endpoint.empty()) {
    PITCREW_ASSIGN(location.endpoint, parse_endpoint(endpoint, which));
    location.root = location.endpoint.path + "/" + location.bucket + "/";
  } else {
    // A bucket with dots has no certificate of its own.
    const bool own_host = location.bucket.find('.') == std::string::npos;
    const std::string host = "s3." + location.region + "." + dns_suffix(location.region);
    location.endpoint = {"https", own_host ? location.bucket + "." + host : host, ""};
    location.root = own_host ? "/" : "/" + location.bucket + "/";
  }
  const std::string key = variables("PITCREW_S3_KMS_KEY");
  location.encrypt = !key.empty();
  if (key != "aws:kms") location.kms_key = key;
  return location;
}

}  // namespace pitcrew::trainer::s3
