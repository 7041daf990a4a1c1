#pragma once

#include <functional>
#include <memory>
#include <string>

#include "lib/base/log.hpp"
#include "lib/base/loop.hpp"
#include "lib/base/random.hpp"
#include "lib/kube/client/client.hpp"
#include "lib/kube/runtime/leader_election.hpp"

namespace pitcrew::kube {

// Carries out LeaderElection with a Client of its own. Lives on a Loop; destroying it stops renewing without a word, as
// a crash would: release() is the clean way.
class LeaderElector {
 public:
  struct Callbacks {
    std::function<void(Term term)> on_started;
    // Leadership is lost: stop at once. It is not called for release().
    std::function<void(const std::string& reason)> on_stopped;
  };

  LeaderElector(Loop& loop, Transport& transport, uint64_t seed, LeaderElectionSettings settings, Callbacks callbacks,
                Logger log = {});
  ~LeaderElector();
  LeaderElector(const LeaderElector&) = delete;
  LeaderElector& operator=(const LeaderElector&) = delete;

  void start();
  // Gives the lease back so that another takes it within a retry period; call it after all work has stopped.
  void release(std::function<void()> released);

  bool leading() const { return election_.leading(loop_.now()); }
  Term term() const { return election_.term(); }
  const std::string& holder() const { return election_.holder(); }
  void raise_term(Term above) { election_.raise_term(above); }

 private:
  void step(const LeaderElection::Input& input);
  void carry_out(const LeaderElection::Action& action);

  Loop& loop_;
  Random random_;
  LeaderElectionSettings settings_;
  Callbacks callbacks_;
  Logger log_;
  Client client_;
  LeaderElection election_;
  Loop::TimerPtr timer_;
  std::function<void()> released_;
  std::shared_ptr<bool> alive_;
};

}  // namespace pitcrew::kube
