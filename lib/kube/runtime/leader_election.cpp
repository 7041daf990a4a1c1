#include "lib/kube/runtime/leader_election.hpp"

#include <algorithm>

namespace pitcrew::kube {
namespace {

template <typename... Fs>
struct Overloaded : Fs... {
  using Fs::operator()...;
};
template <typename... Fs>
Overloaded(Fs...) -> Overloaded<Fs...>;

bool same_record(const Lease& a, const Lease& b) {
  return a.metadata.uid == b.metadata.uid && a.holder == b.holder && a.transitions == b.transitions &&
         a.renewed == b.renewed && a.acquired == b.acquired && a.duration_seconds == b.duration_seconds;
}

}  // namespace

Status LeaderElectionSettings::validate() const {
  if (lease.name.empty() || lease.ns.empty())
    return Error(Code::kInvalidArgument, "leader election: the lease needs a namespace and a name");
  if (identity.empty())
    return Error(Code::kInvalidArgument,
                 "leader election: the identity is empty; use the pod's name and a random suffix");
  if (lease_duration <= renew_deadline) {
    return Error(Code::kInvalidArgument, "leader election: the lease duration must be longer than the renew deadline");
  }
  if (to_seconds(renew_deadline) <= 1.2 * to_seconds(retry_period)) {
    return Error(Code::kInvalidArgument,
                 "leader election: the renew deadline must be longer than 1.2 times the retry period");
  }
  if (lease_duration < seconds(1))
    return Error(Code::kInvalidArgument, "leader election: the lease duration must be at least 1s");
  return {};
}

std::vector<LeaderElection::Action> LeaderElection::step(const Input& input, Instant now, double chance) {
  if (released_) return {};
  return std::visit(Overloaded{
                        [&](const Woken&) { return on_woken(now, chance); },
                        [&](const Read& read) { return on_read(read, now, chance); },
                        [&](const Written& written) { return on_written(written, now, chance); },
                        [&](const ReleaseAsked&) { return on_release(now); },
                    },
                    input);
}

LeaderElection::Actions LeaderElection::retry(double chance) const {
  return {Sleep{settings_.retry_period + std::chrono::duration_cast<Duration>(settings_.retry_period * 0.2 * chance)}};
}

// A leader wakes up in time to see its own deadline.
LeaderElection::Actions LeaderElection::watch_deadline(Duration at_most, Instant now) const {
  const Duration left = settings_.renew_deadline - (now - renewed_);
  return {Sleep{std::clamp(left, Duration(0), std::max(at_most, Duration(0)))}};
}

LeaderElection::Actions LeaderElection::lost(std::string reason, double chance) {
  leading_ = false;
  floor_ = std::max(floor_, term_);
  Actions actions{StopLeading{std::move(reason)}};
  for (Action& action : retry(chance)) actions.push_back(std::move(action));
  return actions;
}

Lease LeaderElection::claim(Instant now) const {
  Lease lease = observed_.value_or(Lease{});
  lease.metadata.name = settings_.lease.name;
  lease.metadata.ns = settings_.lease.ns;
  const auto floor = static_cast<int64_t>(floor_.value);
  if (!leading_) {
    lease.transitions = std::max(lease.transitions, floor) + 1;
    lease.acquired = now;
  } else if (floor_ > term_) {
    lease.transitions = std::max(lease.transitions, floor) + 1;
  }
  lease.holder = settings_.identity;
  lease.duration_seconds = std::chrono::ceil<seconds>(settings_.lease_duration).count();
  lease.renewed = now;
  return lease;
}

LeaderElection::Actions LeaderElection::renew(Instant now) {
  writing_ = true;
  sent_ = now;
  Actions actions{Update{claim(now)}};
  for (Action& action : watch_deadline(settings_.retry_period, now)) actions.push_back(std::move(action));
  return actions;
}

LeaderElection::Actions LeaderElection::acquire(Instant now) {
  writing_ = true;
  sent_ = now;
  if (!observed_) return {Create{claim(now)}};
  return {Update{claim(now)}};
}

LeaderElection::Actions LeaderElection::on_woken(Instant now, double chance) {
  if (releasing_) return {};
  if (!leading_) {
    if (writing_) return retry(chance);
    return {Get{}};
  }
  if (now - renewed_ >= settings_.renew_deadline) {
    return lost("the lease could not be renewed within " + to_string(settings_.renew_deadline), chance);
  }
  if (writing_) return watch_deadline(settings_.retry_period, now);
  return renew(now);
}

void LeaderElection::observe(const std::optional<Lease>& lease, Instant now) {
  const bool same = observed_.has_value() == lease.has_value() && (!lease || same_record(*observed_, *lease));
  if (!same) observed_at_ = now;
  observed_ = lease;
  holder_ = lease ? lease->holder : "";
}

LeaderElection::Actions LeaderElection::on_read(const Read& read, Instant now, double chance) {
  if (releasing_) return {};
  if (writing_) return {};  // what is read now may be older than what its answer will say
  if (!read.lease) return leading_ ? watch_deadline(settings_.retry_period, now) : retry(chance);
  observe(*read.lease, now);
  if (leading_) {
    const bool ours = observed_ && observed_->holder == settings_.identity &&
                      observed_->transitions >= static_cast<int64_t>(term_.value);
    if (!ours) return lost(holder_.empty() ? "the lease was taken away" : "the lease is held by " + holder_, chance);
    return renew(now);
  }
  if (!observed_ || holder_.empty() || holder_ == settings_.identity) return acquire(now);
  const Duration patience =
      observed_->duration_seconds > 0 ? Duration(seconds(observed_->duration_seconds)) : settings_.lease_duration;
  if (now - observed_at_ >= patience) return acquire(now);
  return retry(chance);
}

LeaderElection::Actions LeaderElection::on_written(const Written& written, Instant now, double chance) {
  writing_ = false;
  if (written.lease) {
    observe(*written.lease, now);
    renewed_ = sent_;
  }
  if (releasing_) {
    // The answer to a renewal under way when the release was asked for, or to the release itself.
    if (written.lease && holder_ == settings_.identity) return give_back();
    released_ = true;
    return {Released{}};
  }
  if (written.lease) {
    if (now - sent_ >= settings_.renew_deadline) {
      if (leading_) return lost("the answer to a renewal came after the deadline", chance);
      return retry(chance);
    }
    const Term term(static_cast<uint64_t>(written.lease->transitions));
    Actions actions;
    if (!leading_ || term > term_) actions.push_back(StartLeading{term});
    leading_ = true;
    term_ = term;
    for (Action& action : watch_deadline(settings_.retry_period - (now - sent_), now))
      actions.push_back(std::move(action));
    return actions;
  }
  if (!leading_) return retry(chance);
  // Somebody else wrote, or an answer of ours was lost: look before anything else.
  const Code code = written.lease.error().code;
  if (code == Code::kConflict || code == Code::kNotFound || code == Code::kPreconditionFailed) {
    Actions actions{Get{}};
    for (Action& action : watch_deadline(settings_.retry_period, now)) actions.push_back(std::move(action));
    return actions;
  }
  return watch_deadline(settings_.retry_period, now);
}

LeaderElection::Actions LeaderElection::give_back() {
  Lease lease = *observed_;
  lease.holder.clear();
  lease.duration_seconds = 1;
  writing_ = true;
  return {Update{std::move(lease)}};
}

LeaderElection::Actions LeaderElection::on_release(Instant) {
  if (releasing_) return {};
  releasing_ = true;
  const bool ours = leading_ && observed_.has_value();
  leading_ = false;
  if (writing_) return {};  // its answer comes first
  if (ours) return give_back();
  released_ = true;
  return {Released{}};
}

}  // namespace pitcrew::kube
