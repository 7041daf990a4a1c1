#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/log.hpp"
#include "lib/base/strong.hpp"
#include "lib/kube/client/client.hpp"
#include "operator/channel/channel_authority.hpp"

namespace pitcrew::control {

struct ChannelKeeperSettings {
  std::string ns;
  std::string secret = "pitcrew-channel";      // of the channel's root
  std::string epoch_secret = "pitcrew-epoch";  // that epochs' keys are derived from
  std::string service = "pitcrew-channel";     // without a selector
  uint32_t port = 9443;
  std::string address;   // numeric: where the Service's connections end while this replica leads
  std::string pod_name;  // of the endpoint's target; empty: none
  ChannelAuthoritySettings authority;
  Duration look_every = seconds(30);
  Duration retry_first = milliseconds(500);  // doubles up to look_every
};

// What the channel's server shows and what launchers are told.
struct ChannelTrust {
  net::TlsServerIdentity identity;
  std::string ca_bundle;
  std::vector<std::string> addresses;  // of the Service: "10.96.0.7:9443"
};

// The channel's objects in the operator's namespace: the Secret with its root and the one that epochs' keys are derived
// from (made by whoever comes first, rotated by the leader, made again from memory where somebody deletes them), the
// Service, and the EndpointSlice, which the leader alone writes: where the Service leads to. Looks at all of them from
// time to time and writes what isn't as it should be; in a quiet cluster nothing.
//
// Lives on the loop, with a client of its own; destroying it drops what is under way.
class ChannelKeeper {
 public:
  struct Callbacks {
    // All is there: told once. `trust` and `epoch_secret` have values from then on.
    std::function<void()> ready;
    // `trust` is another one now.
    std::function<void()> changed;
  };

  ChannelKeeper(Loop& loop, kube::Transport& transport, uint64_t seed, ChannelKeeperSettings settings,
                Callbacks callbacks, Logger log);
  ChannelKeeper(const ChannelKeeper&) = delete;

  void start() { look(); }
  // From now on the Service leads here, and this replica takes the steps of a rotation. Written at once, tried again
  // until it has worked; never over the word of a higher term.
  void lead(Term term);
  void step_down();
  // Where the channel listens, once it does: the endpoint's port.
  void set_port(uint32_t port) { settings_.port = port; }

  const ChannelTrust& trust() const { return trust_; }
  const std::string& epoch_secret() const { return epoch_secret_; }
  // The last look's trouble, for people; empty: none.
  const std::string& problem() const { return problem_; }

 private:
  using Next = std::function<void()>;
  void look();
  void look_at_root(Next next);
  void create_root(Next next);
  void update_root(const Json& secret, ChannelAuthority authority, Next next);
  void adopt(ChannelAuthority authority);
  void look_at_epoch_secret(Next next);
  void look_at_service(Next next);
  void read_service(const Json& service, const Next& next);
  void look_at_endpoints(Next next);
  void write_endpoints(const Json* stored, Next next);
  void failed(const Error& error);
  void done();
  Status renew_identity();
  Json new_object(const ResourceType& type, const std::string& name) const;

  Loop& loop_;
  ChannelKeeperSettings settings_;
  Callbacks callbacks_;
  Logger log_;
  kube::Client client_;
  std::optional<ChannelAuthority> authority_;
  std::optional<Instant> identity_due_;
  std::string identity_root_;  // that issued it
  std::string epoch_secret_;
  std::string service_uid_;
  ChannelTrust trust_;
  std::optional<Term> term_;
  int failures_ = 0;
  bool looking_ = false;
  bool again_ = false;
  bool ready_ = false;
  std::string problem_;
  Loop::TimerPtr timer_;
};

}  // namespace pitcrew::control
