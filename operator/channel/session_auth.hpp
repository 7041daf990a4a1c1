#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "lib/base/loop.hpp"
#include "lib/kube/client/client.hpp"
#include "lib/kube/types/pod.hpp"

namespace pitcrew::control {

struct SessionAuthSettings {
  Duration remember = minutes(5);  // a token's review
  size_t remembered = 20'000;
};

// Proves that a session is the launcher of the pod that it says it is: its token, checked by TokenReview (audience
// `pitcrew`, bound to the pod's name and UID), and the pod, which must be controlled by the job whose UID the hello
// names and that is in the pod's namespace: an owner reference alone is anybody's to write. Reviews are remembered by
// the token's SHA-256. Lives on the loop; the client is one of its own, so that a herd of launchers can't starve other
// requests.
class SessionAuth {
 public:
  using PodLookup = std::function<kube::Ptr<kube::Pod>(const ObjectKey& pod)>;
  // Where the job with that UID is; nothing: no such job is known yet.
  using JobLookup = std::function<std::optional<ObjectKey>(const std::string& job_uid)>;
  struct Claim {
    std::string pod_name;
    std::string pod_uid;
    std::string job_uid;
  };

  // `cached` may know less than the API: what it doesn't show as claimed is read live before it is refused.
  SessionAuth(Loop& loop, kube::Client& client, PodLookup cached, JobLookup jobs, SessionAuthSettings settings = {});

  // kUnauthenticated or kForbidden: refused, and why; anything else: could not be checked now. `done` runs on the loop,
  // perhaps inside this call.
  void check(const std::string& token, const Claim& claim, std::function<void(Status)> done);

  uint64_t reviews() const { return reviews_; }
  // Reviews that are kept, those whose time is over included until the next sweep.
  size_t remembered() const { return known_.size(); }

 private:
  struct Identity {
    std::string ns;
    std::string pod_name;
    std::string pod_uid;
  };
  struct Remembered {
    Identity identity;
    Instant until;
  };
  Result<Identity> read_review(const Json& review) const;
  void check_pod(const Identity& identity, const Claim& claim, std::function<void(Status)> done);
  void remember(const std::string& digest, const Identity& identity);

  Loop& loop_;
  kube::Client& client_;
  PodLookup cached_;
  JobLookup jobs_;
  SessionAuthSettings settings_;
  std::map<std::string, Remembered> known_;  // by the token's digest; swept once in `remember`
  Instant swept_;
  uint64_t reviews_ = 0;
};

}  // namespace pitcrew::control
