#include "operator/channel/channel_authority.hpp"

#include "lib/net/crypto.hpp"

namespace pitcrew::control {
namespace {

constexpr char kCertificate[] = "ca.crt";
constexpr char kKey[] = "ca.key";
constexpr char kNextCertificate[] = "next.crt";
constexpr char kNextKey[] = "next.key";
constexpr char kPrevious[] = "previous.crt";
constexpr char kSince[] = "since";
constexpr char kRequest[] = "request";
// Clocks of nodes differ.
constexpr Duration kBackdated = hours(1);

Result<std::string> entry(const Json& data, const char* key) {
  const auto found = data.find(key);
  if (found == data.end() || !found->is_string()) return std::string();
  auto decoded = net::base64_decode(found->get<std::string>());
  if (!decoded) return decoded.error().with_context(key);
  return decoded;
}

}  // namespace

Status ChannelAuthoritySettings::validate() const {
  const auto refuse = [](std::string what) { return Error(Code::kInvalidArgument, std::move(what)); };
  if (overlap < minutes(2)) {
    return refuse("overlap must be at least 2m: a kubelet takes up to a minute and a half to show a new bundle");
  }
  if (certificate_lifetime < minutes(10)) return refuse("certificateLifetime must be at least 10m");
  // A third of a root's time is left when its rotation begins, and two overlaps must fit in.
  if (root_lifetime < 6 * overlap || root_lifetime < 3 * certificate_lifetime) {
    return refuse("rootLifetime must be at least six times the overlap and three times the certificateLifetime");
  }
  return {};
}

Instant renewal_due(const net::Validity& validity) {
  const Instant issued = validity.not_before + kBackdated;
  return issued + (validity.not_after - issued) / 3 * 2;
}

Result<ChannelAuthority::Root> ChannelAuthority::make_root(const ChannelAuthoritySettings& settings, Instant now) {
  PITCREW_ASSIGN(const auto made, net::CertificateAuthority::create("pitcrew-channel-ca",
                                                                    {now - kBackdated, now + settings.root_lifetime}));
  return Root{made.certificate_pem(), made.key_pem()};
}

Result<ChannelAuthority> ChannelAuthority::create(const ChannelAuthoritySettings& settings, Instant now) {
  ChannelAuthority made;
  PITCREW_ASSIGN(made.current_, make_root(settings, now));
  made.since_ = now;
  return made;
}

Result<ChannelAuthority> ChannelAuthority::decode(const Json& data) {
  if (!data.is_object()) return Error(Code::kInvalidArgument, "the channel's Secret has no data");
  ChannelAuthority made;
  PITCREW_ASSIGN(made.current_.certificate_pem, entry(data, kCertificate));
  PITCREW_ASSIGN(made.current_.key_pem, entry(data, kKey));
  PITCREW_TRY(net::CertificateAuthority::load(made.current_.certificate_pem, made.current_.key_pem));
  Root next;
  PITCREW_ASSIGN(next.certificate_pem, entry(data, kNextCertificate));
  PITCREW_ASSIGN(next.key_pem, entry(data, kNextKey));
  if (!next.certificate_pem.empty()) {
    PITCREW_TRY(net::CertificateAuthority::load(next.certificate_pem, next.key_pem));
    made.next_ = std::move(next);
  }
  PITCREW_ASSIGN(made.previous_certificate_, entry(data, kPrevious));
  if (!made.previous_certificate_.empty()) PITCREW_TRY(net::validity_of(made.previous_certificate_));
  PITCREW_ASSIGN(made.answered_, entry(data, kRequest));
  PITCREW_ASSIGN(const std::string since, entry(data, kSince));
  PITCREW_ASSIGN(made.since_, parse_rfc3339(since));
  return made;
}

Json ChannelAuthority::data() const {
  Json data = Json::object();
  const auto put = [&](const char* key, const std::string& value) {
    if (!value.empty()) data[key] = net::base64_encode(value);
  };
  put(kCertificate, current_.certificate_pem);
  put(kKey, current_.key_pem);
  if (next_) {
    put(kNextCertificate, next_->certificate_pem);
    put(kNextKey, next_->key_pem);
  }
  put(kPrevious, previous_certificate_);
  put(kSince, to_rfc3339(since_));
  put(kRequest, answered_);
  return data;
}

std::string ChannelAuthority::bundle() const {
  return current_.certificate_pem + (next_ ? next_->certificate_pem : "") + previous_certificate_;
}

Result<net::TlsServerIdentity> ChannelAuthority::issue(const ChannelAuthoritySettings& settings, Instant now) const {
  PITCREW_ASSIGN(const auto root, net::CertificateAuthority::load(current_.certificate_pem, current_.key_pem));
  return root.issue({{kChannelServerName}, {}}, {now - kBackdated, now + settings.certificate_lifetime});
}

Result<std::optional<ChannelAuthority>> ChannelAuthority::step(const ChannelAuthoritySettings& settings, Instant now,
                                                               const std::string& request) const {
  ChannelAuthority after = *this;
  after.since_ = now;
  if (next_) {
    if (now < since_ + settings.overlap) return std::optional<ChannelAuthority>();
    after.previous_certificate_ = current_.certificate_pem;
    after.current_ = *next_;
    after.next_.reset();
    return std::optional(after);
  }
  if (!previous_certificate_.empty()) {
    if (now < since_ + settings.overlap) return std::optional<ChannelAuthority>();
    after.previous_certificate_.clear();
    return std::optional(after);
  }
  PITCREW_ASSIGN(const net::Validity validity, net::validity_of(current_.certificate_pem));
  const bool asked = !request.empty() && request != answered_;
  if (!asked && now < renewal_due(validity)) return std::optional<ChannelAuthority>();
  PITCREW_ASSIGN(after.next_, make_root(settings, now));
  if (asked) after.answered_ = request;
  return std::optional(after);
}

}  // namespace pitcrew::control
