#pragma once

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lib/base/loop.hpp"
#include "lib/base/random.hpp"
#include "lib/kube/client/rate_limiter.hpp"
#include "lib/kube/transport/transport.hpp"

namespace pitcrew::kube {

template <typename T>
using Ptr = std::shared_ptr<const T>;
template <typename T>
using Callback = std::function<void(Result<T>)>;

struct ListOptions {
  std::string ns;              // empty: all namespaces
  std::string label_selector;  // "a=b,c in (d,e),!f"
  std::string field_selector;  // "spec.nodeName=n1"
  uint32_t page_size = 500;
};

template <typename T>
struct List {
  std::vector<Ptr<T>> items;
  std::string resource_version;
};

// What must still be true of the object for a write to take effect; empty: anything.
struct Preconditions {
  std::string uid;
  std::string resource_version;
};

struct RemoveOptions {
  Preconditions preconditions;
  std::optional<int64_t> grace_seconds;  // unset: the object's own
};

struct Patch {
  PatchKind kind = PatchKind::kMerge;
  Json body;  // kMerge, kStrategic: an object; kJson: a list of operations
  Preconditions preconditions;
  std::string subresource;  // "" or "status"
};

struct ApplyOptions {
  std::string manager;      // who owns the fields; empty: the client's field manager
  bool force = true;        // takes fields over from other managers: what a controller does; else a conflict
  std::string subresource;  // "" or "status"
};

struct ClientSettings {
  double rate = 200;  // requests a second, over all verbs
  double burst = 400;
  Duration timeout = seconds(30);  // of one attempt
  int attempts = 10;               // where the server says Retry-After
  int read_attempts = 3;           // of a get or list that got no answer; writes are never repeated blindly
  Duration read_backoff = milliseconds(200);
  std::string field_manager = "pitcrew";
};

struct ClientMetrics {
  uint64_t requests = 0;  // attempts sent
  uint64_t writes = 0;    // of them, creates, updates, patches and deletes
  uint64_t retries = 0;
  uint64_t throttled = 0;  // waited for the rate limiter
  uint64_t failures = 0;   // calls that ended in an error
};

// A typed client of one API server. Lives on a Loop. Callbacks run on the loop, never inside the call that takes them;
// destroying the client drops every callback that has not run. Give leases a client of their own, so that a busy
// reconcile can't starve a renewal.
//
// A T is a struct with `static const ResourceType& type()`, `static Result<T> decode(const Json&)`, `Json encode()
// const` and `ObjectMeta metadata`.
class Client {
 public:
  Client(Loop& loop, Transport& transport, uint64_t seed, ClientSettings settings = {});
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  template <typename T>
  void get(const ObjectKey& key, Callback<Ptr<T>> done) {
    get_raw(T::type(), key, decoding<T>(std::move(done)));
  }
  // All pages. kGone inside the paging starts again from the first page, once.
  template <typename T>
  void list(const ListOptions& options, Callback<List<T>> done) {
    list_raw(
        T::type(), options, [](const Payload& object) { object.template reduce_to<T>(); },
        [done = std::move(done)](Result<RawList> raw) {
          if (!raw) return done(raw.error());
          List<T> list{{}, std::move(raw->resource_version)};
          list.items.reserve(raw->items.size());
          for (const Payload& item : raw->items) {
            auto object = item.as<T>();
            if (!object) return done(object.error());
            list.items.push_back(*std::move(object));
          }
          done(std::move(list));
        });
  }
  template <typename T>
  void create(const T& object, Callback<Ptr<T>> done) {
    create_raw(T::type(), object.encode(), decoding<T>(std::move(done)));
  }
  // Replaces the object; with metadata.resource_version set, only if it is unchanged (else kConflict).
  template <typename T>
  void update(const T& object, Callback<Ptr<T>> done) {
    update_raw(T::type(), object.encode(), "", decoding<T>(std::move(done)));
  }
  template <typename T>
  void update_status(const T& object, Callback<Ptr<T>> done) {
    update_raw(T::type(), object.encode(), "status", decoding<T>(std::move(done)));
  }
  // kPreconditionFailed or kConflict where a precondition doesn't hold.
  template <typename T>
  void patch(const ObjectKey& key, Patch patch, Callback<Ptr<T>> done) {
    patch_raw(T::type(), key, std::move(patch), decoding<T>(std::move(done)));
  }
  // Server-side apply: makes the object have the fields that are sent, creates it where it is absent, and removes
  // fields that this manager sent before and sends no more. Send the full set of owned fields each time, without
  // resourceVersion, uid and managedFields.
  void apply_raw(const ResourceType& type, Json object, const ApplyOptions& options, Callback<Payload> done);
  template <typename T>
  void remove(const ObjectKey& key, const RemoveOptions& options, std::function<void(Status)> done) {
    remove_raw(T::type(), key, options, std::move(done));
  }

  struct RawList {
    std::vector<Payload> items;
    std::string resource_version;
  };
  void get_raw(const ResourceType& type, const ObjectKey& key, Callback<Payload> done);
  void list_raw(const ResourceType& type, const ListOptions& options, Callback<RawList> done) {
    list_raw(type, options, {}, std::move(done));
  }
  // With Request::reduce.
  void list_raw(const ResourceType& type, const ListOptions& options, std::function<void(const Payload&)> reduce,
                Callback<RawList> done);
  void create_raw(const ResourceType& type, Json object, Callback<Payload> done);
  void update_raw(const ResourceType& type, Json object, const std::string& subresource, Callback<Payload> done);
  void patch_raw(const ResourceType& type, const ObjectKey& key, Patch patch, Callback<Payload> done);
  void remove_raw(const ResourceType& type, const ObjectKey& key, const RemoveOptions& options,
                  std::function<void(Status)> done);
  // POST to a subresource: a pod's `binding`, for instance.
  void create_subresource(const ResourceType& type, const ObjectKey& key, const std::string& subresource, Json body,
                          Callback<Payload> done);
  // Binds a pod to a node, as a scheduler does.
  void bind(const ObjectKey& pod, const std::string& pod_uid, const std::string& node,
            std::function<void(Status)> done);

  // Any request, with the client's limiter and retries.
  void call(Request request, Callback<Response> done);

  const ClientMetrics& metrics() const { return metrics_; }
  size_t in_flight() const { return calls_.size(); }

 private:
  struct Attempt;
  using Attempts = std::list<std::unique_ptr<Attempt>>;
  struct Paging;

  template <typename T>
  static Callback<Payload> decoding(Callback<Ptr<T>> done) {
    return [done = std::move(done)](Result<Payload> body) {
      if (!body) return done(body.error());
      done(body->template as<T>());
    };
  }
  void object_call(Request request, Callback<Payload> done);
  void start(Attempts::iterator attempt);
  void send(Attempts::iterator attempt);
  void answered(Attempts::iterator attempt, Result<Response> response);
  void finish(Attempts::iterator attempt, Result<Response> response);
  void next_page(std::shared_ptr<Paging> paging);

  Loop& loop_;
  Transport& transport_;
  ClientSettings settings_;
  Random random_;
  RateLimiter limiter_;
  ClientMetrics metrics_;
  Attempts calls_;
};

}  // namespace pitcrew::kube
