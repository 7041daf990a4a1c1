#include "lib/kube/client/client.hpp"

#include <algorithm>

#include "lib/kube/transport/list_page.hpp"
#include "lib/kube/types/fields.hpp"

namespace pitcrew::kube {

// One call and its tries. Its iterator in calls_ stays valid until finish().
struct Client::Attempt {
  Request request;
  Callback<Response> done;
  int tries = 0;
  CallPtr call;
  Loop::TimerPtr timer;
};

// A list that is fetched page by page.
struct Client::Paging {
  ResourceType type;
  ListOptions options;
  std::function<void(const Payload&)> reduce;
  RawList list;
  std::string continue_token;
  bool restarted = false;
  Callback<RawList> done;
};

namespace {

bool reads(Verb verb) { return verb == Verb::kGet || verb == Verb::kList; }

// Answers that mean "later", where they say when (client-go rest/with_retry.go).
bool asks_to_wait(const Response& response) {
  return response.retry_after && (response.status == 429 || response.status >= 500);
}

void add_preconditions(Patch& patch) {
  const Preconditions& wanted = patch.preconditions;
  if (patch.kind != PatchKind::kJson) {
    if (!wanted.uid.empty()) patch.body["metadata"]["uid"] = wanted.uid;
    if (!wanted.resource_version.empty()) patch.body["metadata"]["resourceVersion"] = wanted.resource_version;
    return;
  }
  Json operations = Json::array();
  const auto test = [&](const char* path, const std::string& value) {
    if (!value.empty()) operations.push_back({{"op", "test"}, {"path", path}, {"value", value}});
  };
  test("/metadata/uid", wanted.uid);
  test("/metadata/resourceVersion", wanted.resource_version);
  for (Json& operation : patch.body) operations.push_back(std::move(operation));
  patch.body = std::move(operations);
}

}  // namespace

Client::Client(Loop& loop, Transport& transport, uint64_t seed, ClientSettings settings)
    : loop_(loop),
      transport_(transport),
      settings_(std::move(settings)),
      random_(seed),
      limiter_(settings_.rate, settings_.burst) {}

Client::~Client() = default;

void Client::call(Request request, Callback<Response> done) {
  auto attempt = std::make_unique<Attempt>();
  attempt->request = std::move(request);
  attempt->request.timeout = settings_.timeout;
  attempt->done = std::move(done);
  start(calls_.insert(calls_.end(), std::move(attempt)));
}

void Client::start(Attempts::iterator attempt) {
  const Duration wait = limiter_.reserve(loop_.now());
  if (wait <= Duration(0)) return send(attempt);
  ++metrics_.throttled;
  (*attempt)->timer = loop_.after(wait, [this, attempt] { send(attempt); });
}

void Client::send(Attempts::iterator attempt) {
  ++metrics_.requests;
  if (!reads((*attempt)->request.verb)) ++metrics_.writes;
  ++(*attempt)->tries;
  (*attempt)->call = transport_.send(
      (*attempt)->request, [this, attempt](Result<Response> response) { answered(attempt, std::move(response)); });
}

void Client::answered(Attempts::iterator attempt, Result<Response> response) {
  const int tries = (*attempt)->tries;
  std::optional<Duration> wait;
  if (response && response->status == 429) limiter_.too_much(loop_.now());
  if (response) {
    if (asks_to_wait(*response) && tries < settings_.attempts) wait = *response->retry_after;
  } else if (reads((*attempt)->request.verb) && response.error().retryable() && tries < settings_.read_attempts) {
    wait = std::chrono::duration_cast<Duration>(settings_.read_backoff * (1 << (tries - 1)) * (1 + random_.uniform()));
  }
  if (!wait) return finish(attempt, std::move(response));
  ++metrics_.retries;
  (*attempt)->timer = loop_.after(*wait, [this, attempt] { start(attempt); });
}

void Client::finish(Attempts::iterator attempt, Result<Response> response) {
  const std::unique_ptr<Attempt> ended = std::move(*attempt);
  calls_.erase(attempt);
  if (response) {
    if (auto error = error_of(ended->request, *response)) response = *std::move(error);
  } else {
    response = response.error().with_context(describe(ended->request));
  }
  if (!response) ++metrics_.failures;
  // The callback may destroy this client.
  ended->done(std::move(response));
}

void Client::object_call(Request request, Callback<Payload> done) {
  call(std::move(request), [done = std::move(done)](Result<Response> response) {
    if (!response) return done(response.error());
    done(std::move(response->body));
  });
}

void Client::get_raw(const ResourceType& type, const ObjectKey& key, Callback<Payload> done) {
  object_call({.verb = Verb::kGet, .type = type, .key = key}, std::move(done));
}

void Client::list_raw(const ResourceType& type, const ListOptions& options, std::function<void(const Payload&)> reduce,
                      Callback<RawList> done) {
  auto paging = std::make_shared<Paging>();
  paging->type = type;
  paging->options = options;
  paging->reduce = std::move(reduce);
  paging->done = std::move(done);
  next_page(std::move(paging));
}

void Client::next_page(std::shared_ptr<Paging> paging) {
  Request request{.verb = Verb::kList, .type = paging->type, .key = {paging->options.ns, ""}};
  const auto parameter = [&](const char* name, const std::string& value) {
    if (!value.empty()) request.query.emplace_back(name, value);
  };
  parameter("labelSelector", paging->options.label_selector);
  parameter("fieldSelector", paging->options.field_selector);
  if (paging->options.page_size > 0) parameter("limit", std::to_string(paging->options.page_size));
  parameter("continue", paging->continue_token);
  request.reduce = paging->reduce;
  call(std::move(request), [this, paging](Result<Response> response) {
    if (!response) {
      // A continue token lives for minutes only.
      if (response.error().code != Code::kGone || paging->continue_token.empty() || paging->restarted) {
        return paging->done(response.error());
      }
      paging->restarted = true;
      paging->list = {};
      paging->continue_token.clear();
      return next_page(paging);
    }
    auto page = split_list(*std::move(response));
    if (!page) return paging->done(page.error());
    std::move(page->items.begin(), page->items.end(), std::back_inserter(paging->list.items));
    paging->list.resource_version = page->resource_version;
    paging->continue_token = page->continue_token;
    if (paging->continue_token.empty()) return paging->done(std::move(paging->list));
    next_page(paging);
  });
}

void Client::create_raw(const ResourceType& type, Json object, Callback<Payload> done) {
  Request request{.verb = Verb::kCreate, .type = type};
  if (const Json* metadata = fields::find(object, "metadata")) fields::read(*metadata, "namespace", request.key.ns);
  request.query.emplace_back("fieldManager", settings_.field_manager);
  request.body = Payload::of(std::move(object));
  object_call(std::move(request), std::move(done));
}

void Client::update_raw(const ResourceType& type, Json object, const std::string& subresource, Callback<Payload> done) {
  Request request{.verb = Verb::kUpdate, .type = type, .subresource = subresource};
  if (const Json* metadata = fields::find(object, "metadata")) {
    fields::read(*metadata, "namespace", request.key.ns);
    fields::read(*metadata, "name", request.key.name);
  }
  request.query.emplace_back("fieldManager", settings_.field_manager);
  request.body = Payload::of(std::move(object));
  object_call(std::move(request), std::move(done));
}

void Client::patch_raw(const ResourceType& type, const ObjectKey& key, Patch patch, Callback<Payload> done) {
  add_preconditions(patch);
  Request request{
      .verb = Verb::kPatch, .type = type, .key = key, .subresource = patch.subresource, .patch = patch.kind};
  request.query.emplace_back("fieldManager", settings_.field_manager);
  request.body = Payload::of(std::move(patch.body));
  object_call(std::move(request), std::move(done));
}

void Client::apply_raw(const ResourceType& type, Json object, const ApplyOptions& options, Callback<Payload> done) {
  Request request{.verb = Verb::kPatch, .type = type, .subresource = options.subresource, .patch = PatchKind::kApply};
  if (const Json* metadata = fields::find(object, "metadata")) {
    fields::read(*metadata, "namespace", request.key.ns);
    fields::read(*metadata, "name", request.key.name);
  }
  request.query.emplace_back("fieldManager", options.manager.empty() ? settings_.field_manager : options.manager);
  if (options.force) request.query.emplace_back("force", "true");
  object["apiVersion"] = type.api_version();
  object["kind"] = type.kind;
  request.body = Payload::of(std::move(object));
  object_call(std::move(request), std::move(done));
}

void Client::remove_raw(const ResourceType& type, const ObjectKey& key, const RemoveOptions& options,
                        std::function<void(Status)> done) {
  Json body = {{"apiVersion", "v1"}, {"kind", "DeleteOptions"}, {"propagationPolicy", "Background"}};
  if (options.grace_seconds) body["gracePeriodSeconds"] = *options.grace_seconds;
  if (!options.preconditions.uid.empty()) body["preconditions"]["uid"] = options.preconditions.uid;
  if (!options.preconditions.resource_version.empty()) {
    body["preconditions"]["resourceVersion"] = options.preconditions.resource_version;
  }
  Request request{.verb = Verb::kDelete, .type = type, .key = key, .body = Payload::of(std::move(body))};
  call(std::move(request), [done = std::move(done)](Result<Response> response) {
    if (!response) return done(response.error());
    done({});
  });
}

void Client::create_subresource(const ResourceType& type, const ObjectKey& key, const std::string& subresource,
                                Json body, Callback<Payload> done) {
  Request request{.verb = Verb::kCreate, .type = type, .key = key, .subresource = subresource};
  request.query.emplace_back("fieldManager", settings_.field_manager);
  request.body = Payload::of(std::move(body));
  object_call(std::move(request), std::move(done));
}

void Client::bind(const ObjectKey& pod, const std::string& pod_uid, const std::string& node,
                  std::function<void(Status)> done) {
  static const ResourceType kPods{"", "v1", "Pod", "pods", true};
  Json body = {{"apiVersion", "v1"},
               {"kind", "Binding"},
               {"metadata", {{"name", pod.name}, {"namespace", pod.ns}, {"uid", pod_uid}}},
               {"target", {{"apiVersion", "v1"}, {"kind", "Node"}, {"name", node}}}};
  create_subresource(kPods, pod, "binding", std::move(body), [done = std::move(done)](Result<Payload> result) {
    if (!result) return done(result.error());
    done({});
  });
}

}  // namespace pitcrew::kube
