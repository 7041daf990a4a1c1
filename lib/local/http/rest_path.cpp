#include "lib/local/http/http_api.hpp"

namespace pitcrew::local {
namespace {

using kube::PatchKind;
using kube::Request;
using kube::Verb;

std::vector<std::string> segments_of(std::string_view path) {
  std::vector<std::string> segments;
  while (!path.empty()) {
    path.remove_prefix(1);  // '/'
    const std::string_view segment = path.substr(0, path.find('/'));
    path.remove_prefix(segment.size());
    segments.push_back(net::percent_decode(segment));
  }
  return segments;
}

bool says_yes(const std::string& value) { return value == "1" || value == "true"; }

Result<Verb> verb_of(const net::HttpRequest& http, const Request& request) {
  if (http.method == "GET") {
    if (!request.key.name.empty()) return Verb::kGet;
    return says_yes(request.parameter("watch")) ? Verb::kWatch : Verb::kList;
  }
  if (http.method == "POST") return Verb::kCreate;
  const bool named = !request.key.name.empty();
  if (http.method == "PUT" && named) return Verb::kUpdate;
  if (http.method == "PATCH" && named) return Verb::kPatch;
  if (http.method == "DELETE" && named) return Verb::kDelete;
  return Error(Code::kUnsupported, http.method + " is not served at " + std::string(http.path()));
}

Result<PatchKind> patch_kind_of(const net::HttpRequest& http) {
  const std::string* type = net::find_header(http.headers, "Content-Type");
  const std::string text = type == nullptr ? "" : type->substr(0, type->find(';'));
  if (text == "application/merge-patch+json") return PatchKind::kMerge;
  if (text == "application/json-patch+json") return PatchKind::kJson;
  if (text == "application/strategic-merge-patch+json") return PatchKind::kStrategic;
  if (text == "application/apply-patch+yaml") return PatchKind::kApply;
  return Error(Code::kInvalidArgument, "a patch of Content-Type '" + text + "' is not understood");
}

}  // namespace

Result<Request> parse_request(const net::HttpRequest& http) {
  const Error nothing_here(Code::kNotFound, "the server could not find the requested resource");
  if (http.path().empty() || http.path().front() != '/') return nothing_here;
  const std::vector<std::string> segments = segments_of(http.path());
  Request request;
  size_t at = 0;
  const auto next = [&] { return at < segments.size() ? segments[at++] : std::string(); };
  const std::string root = next();
  if (root != "api" && root != "apis") return nothing_here;
  if (root == "apis") request.type.group = next();
  request.type.version = next();
  request.type.namespaced = false;
  // /namespaces/x alone is the namespace itself.
  if (segments.size() - at >= 3 && segments[at] == "namespaces") {
    request.type.namespaced = true;
    ++at;
    request.key.ns = next();
  }
  request.type.plural = next();
  request.key.name = next();
  request.subresource = next();
  if (request.type.plural.empty() || at < segments.size()) return nothing_here;
  request.query = net::parse_query(http.query());
  PITCREW_ASSIGN(request.verb, verb_of(http, request));
  if (request.verb == Verb::kPatch) {
    PITCREW_ASSIGN(request.patch, patch_kind_of(http));
  }
  if (!http.body.empty()) request.body = kube::Payload::text(http.body);
  return request;
}

}  // namespace pitcrew::local
