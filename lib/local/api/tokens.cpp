#include "lib/local/api/tokens.hpp"

#include <algorithm>

#include "lib/kube/types/fields.hpp"

namespace pitcrew::local {
namespace {

Json refused(const char* why) { return {{"authenticated", false}, {"error", why}}; }

}  // namespace

std::string Tokens::issue(Grant grant, Instant now) {
  for (auto entry = grants_.begin(); entry != grants_.end();) {
    entry = entry->second.expires <= now ? grants_.erase(entry) : std::next(entry);
  }
  std::string token = "pitcrew-local." + source_();
  grants_[token] = std::move(grant);
  return token;
}

Json Tokens::review(const Json& spec, const PodUid& pod_uid, Instant now) const {
  std::string token;
  kube::fields::read(spec, "token", token);
  std::vector<std::string> audiences;
  kube::fields::read(spec, "audiences", audiences);
  const auto found = grants_.find(token);
  if (found == grants_.end()) return refused("the token is not known");
  const Grant& grant = found->second;
  if (grant.expires <= now) return refused("the token has expired");
  if (std::find(audiences.begin(), audiences.end(), grant.audience) == audiences.end()) {
    return refused("the token's audience is another");
  }
  if (pod_uid(grant.pod) != grant.pod_uid) return refused("the token's pod is gone");
  Json extra = {{"authentication.kubernetes.io/pod-name", Json::array({grant.pod.name})},
                {"authentication.kubernetes.io/pod-uid", Json::array({grant.pod_uid})}};
  return {{"authenticated", true},
          {"audiences", Json::array({grant.audience})},
          {"user",
           {{"username", "system:serviceaccount:" + grant.pod.ns + ":" + grant.service_account},
            {"groups", Json::array({"system:serviceaccounts", "system:serviceaccounts:" + grant.pod.ns})},
            {"extra", std::move(extra)}}}};
}

}  // namespace pitcrew::local
