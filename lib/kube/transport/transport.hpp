#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lib/base/object_meta.hpp"
#include "lib/kube/transport/payload.hpp"

namespace pitcrew::kube {

enum class Verb { kGet, kList, kWatch, kCreate, kUpdate, kPatch, kDelete };
std::string_view to_string(Verb verb);

enum class PatchKind { kMerge, kJson, kStrategic, kApply };  // kApply: server-side apply

// What is asked of an API server. Network transports send method(), target() and content_type(); the one in memory
// reads the fields.
struct Request {
  Verb verb = Verb::kGet;
  ResourceType type;
  ObjectKey key;            // a list's or a create's has no name; an empty namespace lists all of them
  std::string subresource;  // status, binding, log, proxy/metrics
  PatchKind patch = PatchKind::kMerge;
  std::vector<std::pair<std::string, std::string>> query;
  Payload body;
  Duration timeout = seconds(30);  // for the whole answer; of a watch, for its opening
  // Of a list or a watch, if set: transports that read from a network call it for each object as it comes (not for
  // bookmarks and errors), so that nothing but what the caller decodes is kept; managedFields are then left out.
  std::function<void(const Payload& object)> reduce;

  // The value of a query parameter, or "".
  const std::string& parameter(std::string_view name) const;
};

std::string_view method(const Request& request);        // GET, POST …
std::string target(const Request& request);             // /api/v1/namespaces/a/pods?limit=500, escaped
std::string_view content_type(const Request& request);  // of the body
std::string describe(const Request& request);           // "get pods team-a/x", for messages

struct Response {
  int status = 200;
  Payload body;
  // A list's items where they came apart; `body` then holds the list without them.
  std::vector<Payload> items;
  std::optional<Duration> retry_after;
};

enum class WatchEventType { kAdded, kModified, kDeleted, kBookmark, kError, kUnknown };
std::string_view to_string(WatchEventType type);  // ADDED …
WatchEventType parse_watch_event_type(std::string_view text);

struct WatchEvent {
  WatchEventType type = WatchEventType::kUnknown;
  Payload object;  // of kError: a Status
};

// A request or a watch under way. Destroying it cancels: its callbacks are not called any more. A write that was
// already sent may take effect all the same.
class Call {
 public:
  virtual ~Call() = default;
};
using CallPtr = std::unique_ptr<Call>;

// Carries requests to one API server and answers back. Lives on a Loop: callbacks run on it, never inside send() or
// watch(), and may destroy their own Call.
class Transport {
 public:
  // An answer of any HTTP status, or an error where there was none: kUnavailable (not sent, or the reply was lost),
  // kDeadlineExceeded, kUnauthenticated (no credentials to send).
  using Answer = std::function<void(Result<Response>)>;

  struct WatchSink {
    std::function<void(WatchEvent)> on_event;
    // Once, the last thing said: success where the server closed the stream, an error where the status wasn't 200 or
    // the connection broke.
    std::function<void(Status)> on_end;
  };

  virtual ~Transport() = default;
  [[nodiscard]] virtual CallPtr send(Request request, Answer answer) = 0;
  [[nodiscard]] virtual CallPtr watch(Request request, WatchSink sink) = 0;
};

// The error that an answer means: nothing where its status is below 400. The API's Status body decides before the
// number: AlreadyExists and Conflict share 409.
std::optional<Error> error_of(const Request& request, const Response& response);
// The error that an ERROR event's Status object means.
Error error_of_status(const Json& status, std::string_view what);

}  // namespace pitcrew::kube
