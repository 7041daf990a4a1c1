#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "lib/base/object_meta.hpp"

namespace pitcrew::local {

// Tokens of pods' service accounts: issued as a kubelet projects them, looked up as TokenReview does. Pure but for the
// source of their text.
class Tokens {
 public:
  struct Grant {
    std::string audience;
    ObjectKey pod;
    std::string pod_uid;
    std::string service_account;
    Instant expires;
  };
  // The UID of the pod that has this key now, or "".
  using PodUid = std::function<std::string(const ObjectKey& pod)>;

  explicit Tokens(std::function<std::string()> source) : source_(std::move(source)) {}

  std::string issue(Grant grant, Instant now);
  // The status of a TokenReview of this spec.
  Json review(const Json& spec, const PodUid& pod_uid, Instant now) const;

 private:
  std::function<std::string()> source_;
  std::map<std::string, Grant> grants_;
};

}  // namespace pitcrew::local
