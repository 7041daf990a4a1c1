#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "lib/base/strong.hpp"
#include "lib/base/time.hpp"
#include "lib/kube/types/lease.hpp"

namespace pitcrew::kube {

struct LeaderElectionSettings {
  ObjectKey lease;
  std::string identity;                   // unique to this process
  Duration lease_duration = seconds(10);  // how long others wait for a silent holder
  Duration renew_deadline = seconds(7);   // how long the holder goes on without a renewal
  Duration retry_period = milliseconds(1500);

  // The holder must give up before anybody takes over: duration > deadline > 1.2 × retry.
  Status validate() const;
};

// Leader election by a Lease as a step function. Another holder is judged only by how long, on the local clock, its
// record has not changed; its own times are never looked at. The term is the lease's `leaseTransitions`; it grows with
// every acquisition, also by the same identity, so that it fences.
class LeaderElection {
 public:
  // ---- what happened ----
  struct Woken {};
  struct Read {  // the answer to Get; nothing: there is no lease
    Result<std::optional<Lease>> lease;
  };
  struct Written {  // the answer to Create, Update or Release
    Result<Lease> lease;
  };
  struct ReleaseAsked {};  // a clean stop: after all work has stopped
  using Input = std::variant<Woken, Read, Written, ReleaseAsked>;

  // ---- what to do ----
  struct Get {};
  struct Create {
    Lease lease;
  };
  struct Update {
    Lease lease;
  };
  struct Sleep {
    Duration duration{0};
  };
  struct StartLeading {
    Term term;
  };
  struct StopLeading {
    std::string reason;
  };
  struct Released {};
  using Action = std::variant<Get, Create, Update, Sleep, StartLeading, StopLeading, Released>;

  explicit LeaderElection(LeaderElectionSettings settings) : settings_(std::move(settings)) {}

  // `chance` is uniform in [0, 1): the jitter of a follower's retry.
  std::vector<Action> step(const Input& input, Instant now, double chance);

  // Whether this process may act as the leader now: also false when the deadline has passed and nothing has woken it
  // yet.
  bool leading(Instant now) const { return leading_ && now - renewed_ < settings_.renew_deadline; }
  Term term() const { return term_; }
  const std::string& holder() const { return holder_; }
  // The next write's term will be above this one: launchers may have seen a higher one (a restored etcd). A leader gets
  // StartLeading again, with its new term.
  void raise_term(Term above) { floor_ = std::max(floor_, above); }

 private:
  using Actions = std::vector<Action>;
  Actions on_woken(Instant now, double chance);
  Actions on_read(const Read& read, Instant now, double chance);
  Actions on_written(const Written& written, Instant now, double chance);
  Actions on_release(Instant now);
  Actions renew(Instant now);
  Actions acquire(Instant now);
  Actions give_back();
  Actions lost(std::string reason, double chance);
  Actions retry(double chance) const;
  Actions watch_deadline(Duration at_most, Instant now) const;
  void observe(const std::optional<Lease>& lease, Instant now);
  Lease claim(Instant now) const;

  LeaderElectionSettings settings_;
  bool leading_ = false;
  bool releasing_ = false;
  bool writing_ = false;
  bool released_ = false;
  std::optional<Lease> observed_;
  Instant observed_at_;  // when its record last changed, by the local clock
  Instant sent_;         // when the write under way was sent
  Instant renewed_;      // when the last successful write was sent
  Term term_;
  Term floor_;
  std::string holder_;
};

}  // namespace pitcrew::kube
