#include "cli/connect/cluster.hpp"

#include <csignal>

#include "cli/connect/exit_code.hpp"
#include "lib/kube/http/http_transport.hpp"
#include "lib/net/crypto.hpp"

namespace pitcrew::cli {
namespace {

constexpr Duration kForEver = hours(24 * 3650);

std::string with_flags(std::string program, const ClusterFlags& flags, const std::string& ns) {
  if (!flags.kubeconfig.empty()) program += " --kubeconfig " + flags.kubeconfig;
  if (!flags.context.empty()) program += " --context " + flags.context;
  return program + " -n " + ns;
}

Error explained(Error error, const std::string& name, const std::string& kubectl) {
  if (error.code == Code::kNotFound) {
    error.message = "there is no TrainingJob '" + name + "' here; see what there is: " + kubectl + " get trainingjobs";
  }
  return error;
}

}  // namespace

int exit_code_of(const Error& error) {
  switch (error.code) {
    case Code::kNotFound:
      return kExitNotFound;
    case Code::kInvalidArgument:
    case Code::kUnsupported:
      return kExitBadInput;
    case Code::kDeadlineExceeded:
    case Code::kUnavailable:
    case Code::kForbidden:
    case Code::kUnauthenticated:
    case Code::kTooManyRequests:
      return kExitUnreachable;
    default:
      return kExitNo;
  }
}

Cluster::Cluster(net::AsioLoop& loop, const ClusterFlags& flags, std::string ns,
                 std::unique_ptr<kube::Transport> transport)
    : loop_(loop), flags_(flags), ns_(std::move(ns)), transport_(std::move(transport)) {
  kube::ClientSettings settings;
  settings.timeout = flags.timeout;
  settings.attempts = 3;
  settings.field_manager = "pitcrew-cli";
  client_ = std::make_unique<kube::Client>(loop_, *transport_, net::random_seed(), settings);
}

Cluster::~Cluster() = default;

Result<std::unique_ptr<Cluster>> Cluster::open(net::AsioLoop& loop, const ClusterFlags& flags) {
  std::signal(SIGPIPE, SIG_IGN);
  PITCREW_ASSIGN(const kube::ClusterConfig config, kube::default_cluster(flags.kubeconfig, flags.context));
  const std::string ns = !flags.ns.empty() ? flags.ns : config.ns.empty() ? "default" : config.ns;
  PITCREW_ASSIGN(auto transport, kube::connect(loop, config, {}));
  return std::unique_ptr<Cluster>(new Cluster(loop, flags, ns, std::move(transport)));
}

std::string Cluster::kubectl() const { return with_flags("kubectl", flags_, ns_); }
std::string Cluster::pitcrew() const { return with_flags("pitcrew", flags_, ns_); }

template <typename T>
Result<T> Cluster::now_please(const std::function<void(Then<T>)>& start) {
  std::optional<Result<T>> answer;
  start([&answer](Result<T> result) { answer = std::move(result); });
  loop_.run_until([&answer] { return answer.has_value(); }, kForEver);
  if (!answer) return Error(Code::kCancelled, "interrupted");
  return *std::move(answer);
}

Result<api::TrainingJob> Cluster::job(const std::string& name) {
  auto object = get(api::TrainingJob::type(), {ns_, name});
  if (!object) return explained(object.error(), name, kubectl());
  Problems problems;
  // What this version can't read is passed over: the job is shown as far as it is understood.
  return api::decode_training_job(*object, problems);
}

Result<Json> Cluster::get(const ResourceType& type, const ObjectKey& key) {
  return now_please<Json>([&](Then<Json> then) { get_later(type, key, std::move(then)); });
}

Result<std::string> Cluster::text(const ResourceType& type, const ObjectKey& key, const std::string& subresource,
                                  std::vector<std::pair<std::string, std::string>> query) {
  return now_please<std::string>(
      [&](Then<std::string> then) { text_later(type, key, subresource, std::move(query), std::move(then)); });
}

Result<std::vector<Json>> Cluster::list(const ResourceType& type, const kube::ListOptions& options) {
  return now_please<std::vector<Json>>(
      [&](Then<std::vector<Json>> then) { list_later(type, options, std::move(then)); });
}

Result<Json> Cluster::create(const ResourceType& type, Json object) {
  return now_please<Json>([&](Then<Json> then) {
    client_->create_raw(type, std::move(object), [then](Result<kube::Payload> made) {
      if (!made) return then(made.error());
      then((*std::move(made)).take());
    });
  });
}

Result<Json> Cluster::merge(const ResourceType& type, const ObjectKey& key, Json patch) {
  return now_please<Json>([&](Then<Json> then) {
    client_->patch_raw(type, key, {.body = std::move(patch)}, [then](Result<kube::Payload> patched) {
      if (!patched) return then(patched.error());
      then((*std::move(patched)).take());
    });
  });
}

Status Cluster::remove(const ResourceType& type, const ObjectKey& key, std::optional<int64_t> grace_seconds) {
  const auto removed = now_please<bool>([&](Then<bool> then) {
    client_->remove_raw(type, key, {.grace_seconds = grace_seconds}, [then](const Status& status) {
      if (!status) return then(status.error());
      then(true);
    });
  });
  if (!removed) return removed.error();
  return {};
}

void Cluster::get_later(const ResourceType& type, const ObjectKey& key, Then<Json> then) {
  ++pending_;
  client_->get_raw(type, key, [this, then = std::move(then)](Result<kube::Payload> body) {
    --pending_;
    if (!body) return then(body.error());
    then((*std::move(body)).take());
  });
}

void Cluster::list_later(const ResourceType& type, const kube::ListOptions& options, Then<std::vector<Json>> then) {
  ++pending_;
  client_->list_raw(type, options, [this, then = std::move(then)](Result<kube::Client::RawList> list) {
    --pending_;
    if (!list) return then(list.error());
    std::vector<Json> items;
    for (kube::Payload& item : list->items) {
      auto json = std::move(item).take();
      if (!json) return then(json.error());
      items.push_back(*std::move(json));
    }
    then(std::move(items));
  });
}

void Cluster::text_later(const ResourceType& type, const ObjectKey& key, const std::string& subresource,
                         std::vector<std::pair<std::string, std::string>> query, Then<std::string> then) {
  ++pending_;
  kube::Request request;
  request.verb = kube::Verb::kGet;
  request.type = type;
  request.key = key;
  request.subresource = subresource;
  request.query = std::move(query);
  request.timeout = flags_.timeout;
  client_->call(request, [this, request, then = std::move(then)](Result<kube::Response> response) {
    --pending_;
    if (!response) return then(response.error());
    if (const auto error = kube::error_of(request, *response)) return then(*error);
    then(response->body.empty() ? std::string() : response->body.text());
  });
}

void Cluster::wait() {
  loop_.run_until([this] { return pending_ == 0; }, kForEver);
}

bool Cluster::pause(Duration duration) {
  loop_.run_until([this] { return interrupted_; }, duration);
  return !interrupted_;
}

Status Cluster::catch_interrupt() {
  PITCREW_ASSIGN(signals_, loop_.on_signal({SIGINT, SIGTERM}, [this](int) { interrupted_ = true; }));
  return {};
}

}  // namespace pitcrew::cli
