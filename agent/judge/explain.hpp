#pragma once

#include <string>

#include "lib/api/health_policy.hpp"

namespace pitcrew::agent {

// What would follow an XID (or SXID, with kind "sxid") under the policy, rule by rule, and why: text for a terminal.
std::string explain(const api::HealthPolicy& policy, std::string_view kind, uint32_t code);

// A rule's consequence in a few words: "Fault, Reset, cordons at once, until a reboot".
std::string consequence_of(const api::HealthRule& rule);
// What has to hold beside kind and code: "if reg0 has bit 4 or 5, 3 times within 24h with the same link". Empty:
// nothing.
std::string condition_of(const api::HealthRule& rule);

// docs/health-xids.md: every XID of NVIDIA's catalogue, what others do about it, what the policy does, and why it
// differs.
std::string xid_page(const api::HealthPolicy& policy);

}  // namespace pitcrew::agent
