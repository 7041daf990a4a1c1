#pragma once

#include <ostream>
#include <string>

namespace pitcrew::cli {

struct HealthOptions {
  std::string policy;  // a HealthPolicy's file, laid over the built-in one; empty: the built-in one alone
};

// `pitcrew health explain XID 94`: what would follow, and why. `what` is XID or SXID in any case. Returns the exit
// code: 0, or 2 where the words or the policy can't be understood.
int explain_health(const std::string& what, const std::string& code, const HealthOptions& options, std::ostream& out,
                   std::ostream& err);

// `pitcrew health table`: the page docs/health-xids.md.
int print_health_table(const HealthOptions& options, std::ostream& out, std::ostream& err);

// `pitcrew health policy`: the policy as it counts, as YAML with comments where it is the built-in one, else as JSON.
int print_health_policy(const HealthOptions& options, std::ostream& out, std::ostream& err);

}  // namespace pitcrew::cli
