#include "lib/kube/transport/transport.hpp"

#include <algorithm>
#include <cctype>

#include "lib/kube/types/fields.hpp"

namespace pitcrew::kube {
namespace {

void append_escaped(std::string& out, std::string_view text) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0 || c == '-' || c == '.' || c == '_' || c == '~') {
      out += c;
    } else {
      out += '%';
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
}

void append_segment(std::string& out, std::string_view text) {
  out += '/';
  append_escaped(out, text);
}

// What a number alone means, where the body says nothing.
Code code_of(int status) {
  switch (status) {
    case 400:
    case 405:
    case 406:
    case 415:
    case 422:
      return Code::kInvalidArgument;
    case 401:
      return Code::kUnauthenticated;
    case 403:
      return Code::kForbidden;
    case 404:
      return Code::kNotFound;
    case 408:
    case 504:
      return Code::kDeadlineExceeded;
    case 409:
      return Code::kConflict;
    case 410:
      return Code::kGone;
    case 413:
      return Code::kResourceExhausted;
    case 429:
      return Code::kTooManyRequests;
    case 501:
      return Code::kUnsupported;
    case 500:
      return Code::kInternal;
    default:
      return status >= 500 ? Code::kUnavailable : Code::kInvalidArgument;
  }
}

Code code_of(const Json& status, int number) {
  std::string reason;
  fields::read(status, "reason", reason);
  if (reason == "AlreadyExists") return Code::kAlreadyExists;
  if (reason == "Expired" || reason == "Gone") return Code::kGone;
  if (reason == "ServiceUnavailable") return Code::kUnavailable;
  if (reason == "Conflict") {
    std::string message;
    fields::read(status, "message", message);
    // The API server has no reason of its own for a UID precondition: its texts tell it (apiserver
    // registry/generic/registry/store.go, registry/rest/delete.go).
    const bool uid = message.find("Precondition failed") != std::string::npos ||
                     message.find("the UID in the precondition") != std::string::npos;
    return uid ? Code::kPreconditionFailed : Code::kConflict;
  }
  return code_of(number);
}

std::optional<std::chrono::milliseconds> retry_after(const Json& status) {
  const Json* details = fields::find(status, "details");
  int64_t after = 0;
  if (details != nullptr) fields::read(*details, "retryAfterSeconds", after);
  if (after <= 0) return std::nullopt;
  return seconds(after);
}

// A failed `test` of a JSON patch is 422 without causes; a failed validation has them.
bool failed_test(const Request& request, const Response& response, const Json* status) {
  if (request.verb != Verb::kPatch || request.patch != PatchKind::kJson || response.status != 422) return false;
  const Json* causes = status == nullptr ? nullptr : fields::find(*status, "details", "causes");
  return causes == nullptr || causes->empty();
}

}  // namespace

std::string_view to_string(Verb verb) {
  switch (verb) {
    case Verb::kGet:
      return "get";
    case Verb::kList:
      return "list";
    case Verb::kWatch:
      return "watch";
    case Verb::kCreate:
      return "create";
    case Verb::kUpdate:
      return "update";
    case Verb::kPatch:
      return "patch";
    case Verb::kDelete:
      return "delete";
  }
  return "get";
}

const std::string& Request::parameter(std::string_view name) const {
  static const std::string kNone;
  for (const auto& [key, value] : query) {
    if (key == name) return value;
  }
  return kNone;
}

std::string_view method(const Request& request) {
  switch (request.verb) {
    case Verb::kGet:
    case Verb::kList:
    case Verb::kWatch:
      return "GET";
    case Verb::kCreate:
      return "POST";
    case Verb::kUpdate:
      return "PUT";
    case Verb::kPatch:
      return "PATCH";
    case Verb::kDelete:
      return "DELETE";
  }
  return "GET";
}

std::string target(const Request& request) {
  std::string out = request.type.group.empty() ? "/api" : "/apis";
  if (!request.type.group.empty()) append_segment(out, request.type.group);
  append_segment(out, request.type.version);
  if (request.type.namespaced && !request.key.ns.empty()) {
    out += "/namespaces";
    append_segment(out, request.key.ns);
  }
  append_segment(out, request.type.plural);
  if (!request.key.name.empty()) append_segment(out, request.key.name);
  // "proxy/metrics": what stands behind a proxy has a path of its own.
  for (std::string_view rest = request.subresource; !rest.empty();) {
    const size_t end = std::min(rest.find('/'), rest.size());
    append_segment(out, rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  char separator = '?';
  for (const auto& [key, value] : request.query) {
    out += separator;
    append_escaped(out, key);
    out += '=';
    append_escaped(out, value);
    separator = '&';
  }
  return out;
}

std::string_view content_type(const Request& request) {
  if (request.verb != Verb::kPatch) return "application/json";
  switch (request.patch) {
    case PatchKind::kMerge:
      return "application/merge-patch+json";
    case PatchKind::kJson:
      return "application/json-patch+json";
    case PatchKind::kStrategic:
      return "application/strategic-merge-patch+json";
    case PatchKind::kApply:
      return "application/apply-patch+yaml";  // JSON is YAML
  }
  return "application/json";
}

std::string describe(const Request& request) {
  std::string out(to_string(request.verb));
  out += ' ';
  out += request.type.plural;
  if (!request.subresource.empty()) out += "/" + request.subresource;
  if (!request.key.name.empty() || !request.key.ns.empty()) out += " " + to_string(request.key);
  return out;
}

std::string_view to_string(WatchEventType type) {
  switch (type) {
    case WatchEventType::kAdded:
      return "ADDED";
    case WatchEventType::kModified:
      return "MODIFIED";
    case WatchEventType::kDeleted:
      return "DELETED";
    case WatchEventType::kBookmark:
      return "BOOKMARK";
    case WatchEventType::kError:
      return "ERROR";
    case WatchEventType::kUnknown:
      return "UNKNOWN";
  }
  return "UNKNOWN";
}

WatchEventType parse_watch_event_type(std::string_view text) {
  for (const auto type : {WatchEventType::kAdded, WatchEventType::kModified, WatchEventType::kDeleted,
                          WatchEventType::kBookmark, WatchEventType::kError}) {
    if (text == to_string(type)) return type;
  }
  return WatchEventType::kUnknown;
}

std::optional<Error> error_of(const Request& request, const Response& response) {
  if (response.status < 400) return std::nullopt;
  const Json* status = nullptr;
  if (!response.body.empty()) {
    if (auto tree = response.body.json(); tree && (*tree)->is_object()) status = *tree;
  }
  Error error(code_of(response.status), describe(request) + ": HTTP " + std::to_string(response.status));
  if (status != nullptr) {
    error = error_of_status(*status, describe(request));
    std::string reason;
    fields::read(*status, "reason", reason);
    if (reason.empty()) error.code = code_of(response.status);
  }
  if (failed_test(request, response, status)) error.code = Code::kPreconditionFailed;
  if (response.retry_after) error.retry_after = std::chrono::ceil<milliseconds>(*response.retry_after);
  return error;
}

Error error_of_status(const Json& status, std::string_view what) {
  int64_t number = 500;
  fields::read(status, "code", number);
  std::string message;
  fields::read(status, "message", message);
  if (message.empty()) fields::read(status, "reason", message);
  if (message.empty()) message = "HTTP " + std::to_string(number);
  Error error(code_of(status, static_cast<int>(number)), std::string(what) + ": " + message);
  error.retry_after = retry_after(status);
  return error;
}

}  // namespace pitcrew::kube
