#include "operator/app/channel_keeper.hpp"

#include <charconv>

#include "lib/net/crypto.hpp"

namespace pitcrew::control {
namespace {

const ResourceType kSecret{"", "v1", "Secret", "secrets", true};
const ResourceType kService{"", "v1", "Service", "services", true};
const ResourceType kEndpointSlice{"discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", true};

constexpr char kEpochKey[] = "key";
constexpr size_t kEpochKeyBytes = 32;
constexpr char kPortName[] = "channel";
// Who wants the root replaced before its time sets this on the Secret, to an id of their own.
constexpr char kRotateAnnotation[] = "pitcrew.dev/request-rotate";
constexpr char kTermAnnotation[] = "pitcrew.dev/term";

bool is_v6(const std::string& address) { return address.find(':') != std::string::npos; }

std::string annotation(const Json& object, const char* name) {
  const Json::json_pointer path("/metadata/annotations");
  if (!object.contains(path) || !object.at(path).is_object()) return "";
  const Json& annotations = object.at(path);
  const auto found = annotations.find(name);
  return found != annotations.end() && found->is_string() ? found->get<std::string>() : "";
}

uint64_t term_of(const Json& slice) {
  const std::string text = annotation(slice, kTermAnnotation);
  uint64_t term = 0;
  std::from_chars(text.data(), text.data() + text.size(), term);
  return term;
}

Json data_of(const Json& secret) { return secret.contains("data") ? secret["data"] : Json(); }

}  // namespace

ChannelKeeper::ChannelKeeper(Loop& loop, kube::Transport& transport, uint64_t seed, ChannelKeeperSettings settings,
                             Callbacks callbacks, Logger log)
    : loop_(loop),
      settings_(std::move(settings)),
      callbacks_(std::move(callbacks)),
      log_(std::move(log)),
      client_(loop, transport, seed) {}

void ChannelKeeper::lead(Term term) {
  term_ = term;
  failures_ = 0;
  look();
}

void ChannelKeeper::step_down() { term_.reset(); }

void ChannelKeeper::look() {
  if (looking_) {
    again_ = true;
    return;
  }
  looking_ = true;
  timer_.reset();
  look_at_root(
      [this] { look_at_epoch_secret([this] { look_at_service([this] { look_at_endpoints([this] { done(); }); }); }); });
}

void ChannelKeeper::failed(const Error& error) {
  looking_ = again_ = false;
  if (error.message != problem_) {
    problem_ = error.message;
    log_.warning("the channel's objects are not as they should be; trying again", {{"error", problem_}});
  }
  Duration wait = settings_.retry_first;
  for (int i = 0; i < failures_ && wait < settings_.look_every; ++i) wait *= 2;
  ++failures_;
  wait = std::min(wait, settings_.look_every);
  if (error.retry_after) wait = std::max<Duration>(wait, *error.retry_after);
  timer_ = loop_.after(wait, [this] { look(); });
}

void ChannelKeeper::done() {
  looking_ = false;
  failures_ = 0;
  problem_.clear();
  if (!ready_) {
    ready_ = true;
    if (callbacks_.ready) callbacks_.ready();
  }
  if (std::exchange(again_, false)) return look();
  timer_ = loop_.after(settings_.look_every, [this] { look(); });
}

Json ChannelKeeper::new_object(const ResourceType& type, const std::string& name) const {
  return {{"apiVersion", type.api_version()},
          {"kind", type.kind},
          {"metadata",
           {{"name", name}, {"namespace", settings_.ns}, {"labels", {{"app.kubernetes.io/managed-by", "pitcrew"}}}}}};
}

void ChannelKeeper::look_at_root(Next next) {
  const ObjectKey key{settings_.ns, settings_.secret};
  client_.get_raw(kSecret, key, [this, key, next = std::move(next)](Result<kube::Payload> secret) {
    if (!secret && secret.error().code == Code::kNotFound) return create_root(next);
    if (!secret) return failed(secret.error().with_context("reading the channel's Secret " + to_string(key)));
    const auto json = secret->json();
    if (!json) return failed(json.error());
    auto authority = ChannelAuthority::decode(data_of(**json));
    if (!authority) {
      return failed(Error(Code::kInvalidArgument, "the Secret " + to_string(key) +
                                                      " can't be used: " + authority.error().message +
                                                      "; delete it, and the operator makes it anew"));
    }
    if (term_) {
      auto step = authority->step(settings_.authority, loop_.now(), annotation(**json, kRotateAnnotation));
      if (!step) return failed(step.error());
      if (*step) return update_root(**json, **std::move(step), next);
    }
    adopt(*std::move(authority));
    next();
  });
}

void ChannelKeeper::create_root(Next next) {
  // Somebody has deleted it: launchers believe in the root that this replica knows.
  auto authority =
      authority_ ? Result<ChannelAuthority>(*authority_) : ChannelAuthority::create(settings_.authority, loop_.now());
  if (!authority) return failed(authority.error());
  Json secret = new_object(kSecret, settings_.secret);
  secret["type"] = "Opaque";
  secret["data"] = authority->data();
  client_.create_raw(kSecret, std::move(secret),
                     [this, authority = *authority, next = std::move(next)](Result<kube::Payload> created) {
                       if (!created && created.error().code == Code::kAlreadyExists) return look_at_root(next);
                       if (!created) {
                         return failed(created.error().with_context("creating the Secret " + settings_.ns + "/" +
                                                                    settings_.secret + " of the channel's root"));
                       }
                       log_.info("made the channel's root", {{"secret", settings_.secret}});
                       adopt(authority);
                       next();
                     });
}

void ChannelKeeper::update_root(const Json& secret, ChannelAuthority authority, Next next) {
  Json changed = secret;
  changed["data"] = authority.data();
  client_.update_raw(kSecret, std::move(changed), "",
                     [this, authority = std::move(authority), next = std::move(next)](Result<kube::Payload> updated) {
                       if (!updated) return failed(updated.error().with_context("rotating the channel's root"));
                       log_.info("the channel's root is being rotated", {{"rotating", authority.rotating()}});
                       adopt(authority);
                       next();
                     });
}

void ChannelKeeper::adopt(ChannelAuthority authority) {
  const bool other = !authority_ || authority_->bundle() != authority.bundle();
  authority_ = std::move(authority);
  const bool renew =
      !identity_due_ || loop_.now() >= *identity_due_ || identity_root_ != authority_->signing_certificate();
  if (!other && !renew) return;
  if (renew) {
    if (const Status renewed = renew_identity(); !renewed) {
      log_.error("a certificate for the channel can't be issued", {{"error", renewed.error().message}});
      return;
    }
  }
  trust_.ca_bundle = authority_->bundle();
  if (ready_ && callbacks_.changed) callbacks_.changed();
}

Status ChannelKeeper::renew_identity() {
  PITCREW_ASSIGN(trust_.identity, authority_->issue(settings_.authority, loop_.now()));
  PITCREW_ASSIGN(const net::Validity validity, net::validity_of(trust_.identity.certificate_pem));
  identity_due_ = renewal_due(validity);
  identity_root_ = authority_->signing_certificate();
  return {};
}

void ChannelKeeper::look_at_epoch_secret(Next next) {
  const ObjectKey key{settings_.ns, settings_.epoch_secret};
  client_.get_raw(kSecret, key, [this, key, next = std::move(next)](Result<kube::Payload> secret) {
    if (!secret && secret.error().code == Code::kNotFound) {
      const std::string bytes = epoch_secret_.empty() ? net::random_bytes(kEpochKeyBytes) : epoch_secret_;
      Json made = new_object(kSecret, key.name);
      made["type"] = "Opaque";
      made["data"] = {{kEpochKey, net::base64_encode(bytes)}};
      client_.create_raw(kSecret, std::move(made), [this, key, bytes, next](Result<kube::Payload> created) {
        if (!created && created.error().code == Code::kAlreadyExists) return look_at_epoch_secret(next);
        if (!created) return failed(created.error().with_context("creating the Secret " + to_string(key)));
        epoch_secret_ = bytes;
        next();
      });
      return;
    }
    if (!secret) return failed(secret.error().with_context("reading the Secret " + to_string(key)));
    const auto json = secret->json();
    if (!json) return failed(json.error());
    const Json data = data_of(**json);
    const auto value = data.is_object() && data.contains(kEpochKey) && data[kEpochKey].is_string()
                           ? net::base64_decode(data[kEpochKey].get<std::string>())
                           : Result<std::string>(Error(Code::kNotFound, ""));
    if (!value || value->size() < kEpochKeyBytes) {
      return failed(Error(Code::kInvalidArgument, "the Secret " + to_string(key) +
                                                      " has no `key` of at least 32 bytes" +
                                                      "; delete it, and the operator makes it anew"));
    }
    // One that was replaced counts from the next start on: epochs that run were made with the one before.
    if (epoch_secret_.empty()) epoch_secret_ = *value;
    next();
  });
}

void ChannelKeeper::look_at_service(Next next) {
  const ObjectKey key{settings_.ns, settings_.service};
  client_.get_raw(kService, key, [this, key, next = std::move(next)](Result<kube::Payload> service) {
    if (service) {
      const auto json = service->json();
      if (!json) return failed(json.error());
      return read_service(**json, next);
    }
    if (service.error().code != Code::kNotFound) {
      return failed(service.error().with_context("reading the Service " + to_string(key)));
    }
    Json made = new_object(kService, key.name);
    made["spec"] = {
        {"ports",
         Json::array(
             {{{"name", kPortName}, {"port", settings_.port}, {"targetPort", settings_.port}, {"protocol", "TCP"}}})}};
    client_.create_raw(kService, std::move(made), [this, key, next](Result<kube::Payload> created) {
      if (!created && created.error().code == Code::kAlreadyExists) return look_at_service(next);
      if (!created) return failed(created.error().with_context("creating the Service " + to_string(key)));
      const auto json = created->json();
      if (!json) return failed(json.error());
      read_service(**json, next);
    });
  });
}

void ChannelKeeper::read_service(const Json& service, const Next& next) {
  const std::string what = "the Service " + settings_.ns + "/" + settings_.service;
  const auto refuse = [&](const std::string& why) { failed(Error(Code::kInvalidArgument, what + " " + why)); };
  const Json spec = service.value("spec", Json::object());
  if (spec.contains("selector") && !spec["selector"].empty()) {
    return refuse("has a selector, so that replicas that don't lead would be found too; remove spec.selector");
  }
  const Json ports = spec.value("ports", Json::array());
  if (ports.size() != 1 || ports[0].value("name", "") != kPortName) {
    return refuse("must have one port, named `channel`");
  }
  const int port = ports[0].value("port", 0);
  Json ips = spec.value("clusterIPs", Json::array());
  if (ips.empty()) ips.push_back(spec.value("clusterIP", ""));
  std::vector<std::string> addresses;
  for (const Json& ip : ips) {
    const std::string text = ip.is_string() ? ip.get<std::string>() : "";
    if (text.empty() || text == "None" || is_v6(text) != is_v6(settings_.address)) continue;
    addresses.push_back((is_v6(text) ? "[" + text + "]" : text) + ":" + std::to_string(port));
  }
  if (addresses.empty()) {
    return refuse("has no cluster IP of the family of " + settings_.address +
                  "; launchers connect by address, so it can't be headless");
  }
  service_uid_ = service.value("/metadata/uid"_json_pointer, std::string());
  if (trust_.addresses != addresses) {
    trust_.addresses = std::move(addresses);
    if (ready_ && callbacks_.changed) callbacks_.changed();
  }
  next();
}

void ChannelKeeper::look_at_endpoints(Next next) {
  if (!term_) return next();
  const ObjectKey key{settings_.ns, settings_.service + (is_v6(settings_.address) ? "-ipv6" : "-ipv4")};
  client_.get_raw(kEndpointSlice, key, [this, key, next = std::move(next)](Result<kube::Payload> slice) {
    if (!term_) return next();
    if (!slice && slice.error().code == Code::kNotFound) return write_endpoints(nullptr, next);
    if (!slice) return failed(slice.error().with_context("reading the EndpointSlice " + to_string(key)));
    const auto json = slice->json();
    if (!json) return failed(json.error());
    if (term_of(**json) > term_->value) return next();  // a newer leader has spoken; ours will hear of it
    write_endpoints(*json, next);
  });
}

void ChannelKeeper::write_endpoints(const Json* stored, Next next) {
  Json slice = new_object(kEndpointSlice, settings_.service + (is_v6(settings_.address) ? "-ipv6" : "-ipv4"));
  Json& metadata = slice["metadata"];
  metadata["labels"]["kubernetes.io/service-name"] = settings_.service;
  metadata["labels"]["endpointslice.kubernetes.io/managed-by"] = "operator.pitcrew.dev";
  metadata["annotations"][kTermAnnotation] = std::to_string(term_->value);
  metadata["ownerReferences"] =
      Json::array({{{"apiVersion", "v1"}, {"kind", "Service"}, {"name", settings_.service}, {"uid", service_uid_}}});
  slice["addressType"] = is_v6(settings_.address) ? "IPv6" : "IPv4";
  Json endpoint{{"addresses", Json::array({settings_.address})}, {"conditions", {{"ready", true}}}};
  if (!settings_.pod_name.empty()) {
    endpoint["targetRef"] = {{"kind", "Pod"}, {"namespace", settings_.ns}, {"name", settings_.pod_name}};
  }
  slice["endpoints"] = Json::array({endpoint});
  slice["ports"] = Json::array({{{"name", kPortName}, {"port", settings_.port}, {"protocol", "TCP"}}});
  if (stored == nullptr) {
    return client_.create_raw(kEndpointSlice, std::move(slice),
                              [this, next = std::move(next)](Result<kube::Payload> created) {
                                if (!created)
                                  return failed(created.error().with_context("creating the channel's EndpointSlice"));
                                log_.info("launchers are led here", {{"address", settings_.address}});
                                next();
                              });
  }
  // The API server adds fields of its own: only what launchers are led by counts.
  const auto same_at = [&](const char* path) {
    const Json::json_pointer pointer(path);
    return stored->contains(pointer) && stored->at(pointer) == slice.at(pointer);
  };
  if (term_of(*stored) == term_->value && same_at("/endpoints/0/addresses") && same_at("/ports/0/port")) return next();
  metadata["resourceVersion"] = stored->value("/metadata/resourceVersion"_json_pointer, std::string());
  client_.update_raw(kEndpointSlice, std::move(slice), "",
                     [this, next = std::move(next)](Result<kube::Payload> updated) {
                       if (!updated) return failed(updated.error().with_context("writing the channel's EndpointSlice"));
                       log_.info("launchers are led here", {{"address", settings_.address}});
                       next();
                     });
}

}  // namespace pitcrew::control
