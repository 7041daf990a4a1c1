#pragma once

#include <optional>
#include <string>

#include "lib/base/json.hpp"
#include "lib/net/tls.hpp"

namespace pitcrew::control {

struct ChannelAuthoritySettings {
  Duration root_lifetime = hours(24 * 365);
  // How long two roots are believed at a time: longer than it takes until every launcher has read the new bundle.
  Duration overlap = hours(24);
  Duration certificate_lifetime = hours(24 * 7);  // of a replica's own certificate, kept in memory alone

  Status validate() const;
};

// The name in every replica's certificate; launchers connect by address.
inline constexpr char kChannelServerName[] = "pitcrew-channel";

// The root that all replicas' certificates come from, as it lies in a Secret, and its rotation in three steps: a next
// root is believed beside the signing one; after the overlap it signs, the old one is still believed; after another
// overlap the old one is gone. A value, pure: step() says what the next one is.
class ChannelAuthority {
 public:
  static Result<ChannelAuthority> create(const ChannelAuthoritySettings& settings, Instant now);
  // The `data` of the Secret (base64), and back.
  static Result<ChannelAuthority> decode(const Json& data);
  Json data() const;

  // Every root that is believed now, the signing one first: PEM.
  std::string bundle() const;
  // A replica's certificate.
  Result<net::TlsServerIdentity> issue(const ChannelAuthoritySettings& settings, Instant now) const;
  // The authority after the step that is due; nothing where none is. A step is due by time, or since somebody asks for
  // a rotation by an id that wasn't answered yet ("": nobody).
  Result<std::optional<ChannelAuthority>> step(const ChannelAuthoritySettings& settings, Instant now,
                                               const std::string& request) const;

  const std::string& signing_certificate() const { return current_.certificate_pem; }
  bool rotating() const { return next_.has_value() || !previous_certificate_.empty(); }

 private:
  struct Root {
    std::string certificate_pem;
    std::string key_pem;
  };
  static Result<Root> make_root(const ChannelAuthoritySettings& settings, Instant now);

  Root current_;
  std::optional<Root> next_;
  std::string previous_certificate_;
  Instant since_;         // of the last step
  std::string answered_;  // the last request's id
};

// When a certificate of ours that holds for `validity` is replaced: after two thirds of the time from its making to its
// end. It begins an hour before it is made, since nodes' clocks differ.
Instant renewal_due(const net::Validity& validity);

}  // namespace pitcrew::control
