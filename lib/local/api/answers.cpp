#include "lib/local/api/answers.hpp"

namespace pitcrew::local::answers {
namespace {

std::string quoted(const ResourceType& type, const ObjectKey& key) {
  return type.plural + (type.group.empty() ? "" : "." + type.group) + " \"" + key.name + "\"";
}

}  // namespace

Json status_json(int code, std::string_view reason, const std::string& message) {
  return {{"kind", "Status"}, {"apiVersion", "v1"}, {"status", code < 400 ? "Success" : "Failure"},
          {"reason", reason}, {"message", message}, {"code", code}};
}

kube::Response status(int code, std::string_view reason, const std::string& message) {
  return {.status = code, .body = kube::Payload::of(status_json(code, reason, message))};
}

kube::Response refused(const Error& error) {
  switch (error.code) {
    case Code::kNotFound:
      return status(404, "NotFound", error.message);
    case Code::kAlreadyExists:
      return status(409, "AlreadyExists", error.message);
    case Code::kConflict:
      return status(409, "Conflict", error.message);
    case Code::kPreconditionFailed:
      return status(409, "Conflict", "Precondition failed: " + error.message);
    case Code::kGone:
      return status(410, "Expired", error.message);
    case Code::kUnauthenticated:
      return status(401, "Unauthorized", error.message);
    case Code::kForbidden:
      return status(403, "Forbidden", error.message);
    case Code::kTooManyRequests:
      return status(429, "TooManyRequests", error.message);
    case Code::kUnavailable:
      return status(503, "ServiceUnavailable", error.message);
    case Code::kDeadlineExceeded:
      return status(504, "Timeout", error.message);
    case Code::kResourceExhausted:
      return status(413, "RequestEntityTooLarge", error.message);
    case Code::kUnsupported:
      return status(405, "MethodNotAllowed", error.message);
    case Code::kInvalidArgument:
      return status(422, "Invalid", error.message);
    case Code::kCancelled:
    case Code::kDataLoss:
    case Code::kInternal:
      return status(500, "InternalError", error.message);
  }
  return status(500, "InternalError", error.message);
}

kube::Response not_found(const ResourceType& type, const ObjectKey& key) {
  return status(404, "NotFound", quoted(type, key) + " not found");
}

kube::Response conflict(const ResourceType& type, const ObjectKey& key, const std::string& why) {
  return status(409, "Conflict", "Operation cannot be fulfilled on " + quoted(type, key) + ": " + why);
}

kube::Response bad_request(const std::string& message) { return status(400, "BadRequest", message); }

kube::Response object(kube::Payload body, int code) { return {.status = code, .body = std::move(body)}; }

}  // namespace pitcrew::local::answers
