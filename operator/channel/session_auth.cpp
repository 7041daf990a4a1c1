#include "operator/channel/session_auth.hpp"

#include <algorithm>

#include "lib/api/channel.hpp"
#include "lib/api/training_job.hpp"
#include "lib/net/crypto.hpp"

namespace pitcrew::control {
namespace {

const ResourceType& token_review_type() {
  static const ResourceType type{"authentication.k8s.io", "v1", "TokenReview", "tokenreviews", false};
  return type;
}

// The first value of an extra of the authenticated user; extras are lists of strings.
std::string extra(const Json& user, const char* name) {
  const auto extras = user.find("extra");
  if (extras == user.end() || !extras->is_object()) return "";
  const auto values = extras->find(name);
  if (values == extras->end() || !values->is_array() || values->empty() || !values->front().is_string()) return "";
  return values->front().get<std::string>();
}

std::string text_of(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

Status belongs(const kube::Pod& pod, const SessionAuth::Claim& claim) {
  if (pod.metadata.uid != claim.pod_uid) {
    return Error(Code::kForbidden,
                 "pod " + claim.pod_name + " has another UID now: a pod of an earlier time may not speak for it");
  }
  const OwnerReference* owner = pod.metadata.controller();
  if (owner == nullptr || owner->uid != claim.job_uid || owner->kind != api::TrainingJob::type().kind) {
    return Error(Code::kForbidden, "pod " + claim.pod_name + " does not belong to the job with UID " + claim.job_uid);
  }
  return {};
}

}  // namespace

SessionAuth::SessionAuth(Loop& loop, kube::Client& client, PodLookup cached, JobLookup jobs,
                         SessionAuthSettings settings)
    : loop_(loop), client_(client), cached_(std::move(cached)), jobs_(std::move(jobs)), settings_(settings) {}

Result<SessionAuth::Identity> SessionAuth::read_review(const Json& review) const {
  const auto status = review.find("status");
  if (status == review.end() || !status->is_object() || !status->value("authenticated", false)) {
    const std::string why = status != review.end() && status->is_object() ? text_of(*status, "error") : "";
    return Error(Code::kUnauthenticated, "the token is not valid" + (why.empty() ? "" : ": " + why));
  }
  const auto audiences = status->find("audiences");
  const bool ours = audiences != status->end() && audiences->is_array() &&
                    std::find(audiences->begin(), audiences->end(), Json(api::channel::kAudience)) != audiences->end();
  if (!ours)
    return Error(Code::kUnauthenticated, std::string("the token is not for the audience ") + api::channel::kAudience);
  const auto user = status->find("user");
  if (user == status->end() || !user->is_object()) return Error(Code::kUnauthenticated, "the token names no user");
  Identity identity;
  identity.pod_name = extra(*user, "authentication.kubernetes.io/pod-name");
  identity.pod_uid = extra(*user, "authentication.kubernetes.io/pod-uid");
  // "system:serviceaccount:<namespace>:<name>"
  const std::string name = text_of(*user, "username");
  const std::string prefix = "system:serviceaccount:";
  const size_t end = name.find(':', prefix.size());
  if (!name.starts_with(prefix) || end == std::string::npos || identity.pod_name.empty() || identity.pod_uid.empty()) {
    return Error(Code::kUnauthenticated,
                 "the token is not bound to a pod; a projected service-account token is needed");
  }
  identity.ns = name.substr(prefix.size(), end - prefix.size());
  return identity;
}

void SessionAuth::check(const std::string& token, const Claim& claim, std::function<void(Status)> done) {
  if (token.empty()) return done(Error(Code::kUnauthenticated, "the connection carries no token"));
  const std::string digest = net::sha256(token);
  if (const auto known = known_.find(digest); known != known_.end() && known->second.until > loop_.now()) {
    return check_pod(known->second.identity, claim, std::move(done));
  }
  ++reviews_;
  const Json review{{"apiVersion", token_review_type().api_version()},
                    {"kind", token_review_type().kind},
                    {"spec", {{"token", token}, {"audiences", Json::array({api::channel::kAudience})}}}};
  client_.create_raw(token_review_type(), review,
                     [this, digest, claim, done = std::move(done)](Result<kube::Payload> answer) {
                       if (!answer)
                         return done(answer.error().with_context("reviewing the token of pod " + claim.pod_name));
                       auto json = answer->json();
                       if (!json) return done(json.error());
                       auto identity = read_review(**json);
                       if (!identity) return done(identity.error());
                       remember(digest, *identity);
                       check_pod(*identity, claim, done);
                     });
}

void SessionAuth::check_pod(const Identity& identity, const Claim& claim, std::function<void(Status)> done) {
  if (identity.pod_name != claim.pod_name || identity.pod_uid != claim.pod_uid) {
    return done(
        Error(Code::kForbidden, "the token is that of pod " + identity.pod_name + ", not of " + claim.pod_name));
  }
  const ObjectKey key{identity.ns, identity.pod_name};
  const auto job = jobs_(claim.job_uid);
  if (!job) {
    return done(Error(Code::kUnavailable, "no job with UID " + claim.job_uid + " is known to this operator yet"));
  }
  if (job->ns != identity.ns) {
    return done(Error(Code::kForbidden,
                      "pod " + claim.pod_name + " is not in the namespace of the job with UID " + claim.job_uid));
  }
  if (const auto pod = cached_(key); pod && belongs(*pod, claim).ok()) return done({});
  client_.get<kube::Pod>(key, [claim, done = std::move(done)](Result<kube::Ptr<kube::Pod>> pod) {
    if (pod) return done(belongs(**pod, claim));
    if (pod.error().code == Code::kNotFound)
      return done(Error(Code::kForbidden, "pod " + claim.pod_name + " does not exist"));
    done(pod.error());
  });
}

void SessionAuth::remember(const std::string& digest, const Identity& identity) {
  const Instant now = loop_.now();
  if (known_.size() >= settings_.remembered || now - swept_ >= settings_.remember) {
    std::erase_if(known_, [now](const auto& entry) { return entry.second.until <= now; });
    swept_ = now;
  }
  if (known_.size() >= settings_.remembered) known_.clear();
  known_[digest] = {identity, now + settings_.remember};
}

}  // namespace pitcrew::control
