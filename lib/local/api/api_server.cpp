#include "lib/local/api/api_server.hpp"

#include <deque>

#include "lib/kube/types/fields.hpp"
#include "lib/kube/types/pod.hpp"
#include "lib/local/api/answers.hpp"
#include "lib/local/api/reads.hpp"
#include "lib/local/api/requests.hpp"
#include "lib/local/api/rules.hpp"
#include "lib/local/api/tokens.hpp"
#include "lib/local/api/writes.hpp"

namespace pitcrew::local {

using kube::Payload;
using kube::Request;
using kube::Response;
using kube::Verb;

class ApiServer::Impl {
 public:
  Impl(Loop& loop, ApiServerSettings settings)
      : loop_(loop),
        settings_(std::move(settings)),
        random_(settings_.seed),
        tokens_(settings_.token_source ? settings_.token_source : [this] { return random_text(random_, 40); }),
        store_(loop, settings_, [this](const std::string& owner) { collect_later(owner); }),
        reads_(loop, store_, settings_),
        writes_(loop, store_, random_) {}

  Response handle(const Request& request) {
    ++requests_;
    Store::Type* type = store_.find(request.type);
    if (type == nullptr) return no_such_type(request);
    if (type->resource.kind == "TokenReview") return review(request);
    const bool known_subresource = request.subresource.empty() ||
                                   (request.subresource == "status" && type->options.status_subresource) ||
                                   (request.subresource == "binding" && type->pods());
    if (!known_subresource) {
      return answers::status(404, "NotFound", "the server could not find the requested resource");
    }
    switch (request.verb) {
      case Verb::kGet:
        return reads_.get(*type, request);
      case Verb::kList:
        return reads_.list(*type, request);
      case Verb::kWatch:
        return answers::bad_request("a watch is a stream; open it with watch()");
      case Verb::kCreate:
        return request.subresource == "binding" ? writes_.bind(*type, request) : writes_.create(*type, request);
      case Verb::kUpdate:
        return writes_.update(*type, request);
      case Verb::kPatch:
        return writes_.patch(*type, request);
      case Verb::kDelete:
        return writes_.remove(*type, request);
    }
    return answers::bad_request("unknown verb");
  }

  Result<kube::CallPtr> watch(const Request& request, kube::Transport::WatchSink sink) {
    ++requests_;
    Store::Type* type = store_.find(request.type);
    if (type == nullptr) return *kube::error_of(request, no_such_type(request));
    return reads_.watch(*type, request, std::move(sink));
  }

  std::string issue_token(const std::string& audience, const ObjectKey& pod, const std::string& pod_uid,
                          Duration lifetime) {
    Tokens::Grant grant{audience, pod, pod_uid, "default", loop_.now() + lifetime};
    Store::Type& pods = *store_.find(kube::Pod::type());
    if (const auto found = pods.objects.find(pod); found != pods.objects.end()) {
      if (const std::string* account = text_at(**found->second.json(), "spec.serviceAccountName")) {
        grant.service_account = *account;
      }
    }
    return tokens_.issue(std::move(grant), loop_.now());
  }

  Loop& loop_;
  ApiServerSettings settings_;
  Random random_;
  Tokens tokens_;
  Store store_;
  Reads reads_;
  Writes writes_;
  uint64_t requests_ = 0;

 private:
  static Response no_such_type(const Request& request) {
    return answers::status(
        404, "NotFound",
        "the server could not find the requested resource (" + request.type.plural + "." + request.type.group + ")");
  }

  Response review(const Request& request) {
    if (request.verb != Verb::kCreate)
      return answers::status(405, "MethodNotAllowed", "a TokenReview can only be created");
    auto body = body_of(request);
    if (!body) return answers::bad_request(body.error().message);
    const Store::Type& pods = *store_.find(kube::Pod::type());
    const auto pod_uid = [&](const ObjectKey& key) {
      const auto found = pods.objects.find(key);
      return found == pods.objects.end() ? std::string() : rules::uid_of(**found->second.json());
    };
    static const Json kNone = Json::object();
    const Json* spec = kube::fields::find(*body, "spec");
    Json status = tokens_.review(spec == nullptr ? kNone : *spec, pod_uid, loop_.now());
    (*body)["status"] = std::move(status);
    return answers::object(Payload::of(*std::move(body)), 201);
  }

  void collect_later(const std::string& owner) {
    timers_.push_back(loop_.after(settings_.gc_delay, [this, owner] {
      writes_.collect(owner);
      timers_.pop_front();  // this one: they all wait equally long
    }));
  }

  std::deque<Loop::TimerPtr> timers_;
};

ApiServer::ApiServer(Loop& loop, ApiServerSettings settings)
    : impl_(std::make_unique<Impl>(loop, std::move(settings))) {}
ApiServer::~ApiServer() = default;

void ApiServer::register_type(const ResourceType& type, TypeOptions options) {
  impl_->store_.add(type, std::move(options));
}

void ApiServer::set_admission(const ResourceType& type, Admission admission) {
  Store::Type* known = impl_->store_.find(type);
  PITCREW_INVARIANT(known != nullptr, "admission for a type that is not registered: " + type.plural);
  known->options.admission = std::move(admission);
}

void ApiServer::track_managers(const ResourceType& type) {
  Store::Type* known = impl_->store_.find(type);
  PITCREW_INVARIANT(known != nullptr, "managers of a type that is not registered: " + type.plural);
  known->track_managers = true;
}

void ApiServer::add_observer(Observer observer) { impl_->store_.add_observer(std::move(observer)); }
Response ApiServer::handle(const Request& request) { return impl_->handle(request); }

Result<kube::CallPtr> ApiServer::watch(const Request& request, kube::Transport::WatchSink sink) {
  return impl_->watch(request, std::move(sink));
}

uint64_t ApiServer::resource_version() const { return impl_->store_.version(); }

Payload ApiServer::find(const ResourceType& type, const ObjectKey& key) const {
  const Store::Type* known = impl_->store_.find(type);
  if (known == nullptr) return {};
  const auto found = known->objects.find(key);
  return found == known->objects.end() ? Payload() : found->second;
}

void ApiServer::for_each(const ResourceType& type, const std::function<void(const Payload&)>& f) const {
  const Store::Type* known = impl_->store_.find(type);
  if (known == nullptr) return;
  for (const auto& [key, body] : known->objects) f(body);
}

size_t ApiServer::count(const ResourceType& type) const {
  const Store::Type* known = impl_->store_.find(type);
  return known == nullptr ? 0 : known->objects.size();
}

uint64_t ApiServer::writes(const ResourceType& type) const {
  const Store::Type* known = impl_->store_.find(type);
  return known == nullptr ? 0 : known->writes;
}

uint64_t ApiServer::writes() const { return impl_->store_.writes(); }
uint64_t ApiServer::requests() const { return impl_->requests_; }

size_t ApiServer::watches() const {
  size_t count = 0;
  for (const Store::Type& type : impl_->store_.types()) count += type.watches->size();
  return count;
}

void ApiServer::compact() {
  impl_->reads_.drop_pages();
  for (Store::Type& type : impl_->store_.types()) type.watches->compact();
}

void ApiServer::close_watches() {
  for (Store::Type& type : impl_->store_.types()) type.watches->close_all();
}

std::string ApiServer::issue_token(const std::string& audience, const ObjectKey& pod, const std::string& pod_uid,
                                   Duration lifetime) {
  return impl_->issue_token(audience, pod, pod_uid, lifetime);
}

Json ApiServer::snapshot() const { return impl_->store_.snapshot(); }
Status ApiServer::restore(const Json& snapshot) { return impl_->store_.restore(snapshot); }

}  // namespace pitcrew::local
