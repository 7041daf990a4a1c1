#include "cli/health/health.hpp"

#include <sstream>

#include <gtest/gtest.h>

#include "lib/base/testing/temp_folder.hpp"

namespace pitcrew::cli {
namespace {

const char kPolicy[] = R"(apiVersion: pitcrew.dev/v1alpha1
kind: HealthPolicy
metadata: {name: ours}
spec:
  rules:
  - {name: xid-94, match: {kind: xid, codes: [94]}, severity: Fault, action: Reset, message: we are careful}
)";

TEST(HealthCommand, explains_a_code_in_any_spelling) {
  std::ostringstream out, err;
  EXPECT_EQ(explain_health("XID", "94", {}, out, err), 0);
  EXPECT_EQ(explain_health("sxid", "12028", {}, out, err), 0);
  EXPECT_NE(out.str().find("Contained memory error"), std::string::npos);
  EXPECT_NE(out.str().find("SXID 12028"), std::string::npos);
}

TEST(HealthCommand, says_how_to_write_what_it_does_not_understand) {
  std::ostringstream out, err;
  EXPECT_EQ(explain_health("XID", "abc", {}, out, err), 2);
  EXPECT_EQ(explain_health("pid", "94", {}, out, err), 2);
  EXPECT_NE(err.str().find("write it like: explain XID 94"), std::string::npos);
}

TEST(HealthCommand, lays_a_clusters_policy_over_the_built_in_one) {
  const TempFolder folder;
  std::ostringstream out, err;
  EXPECT_EQ(explain_health("XID", "94", {folder.write("policy.yaml", kPolicy)}, out, err), 0) << err.str();
  EXPECT_NE(out.str().find("we are careful"), std::string::npos);
  EXPECT_EQ(print_health_policy({folder.write("policy.yaml", kPolicy)}, out, err), 0);
  EXPECT_EQ(print_health_table({folder.write("policy.yaml", kPolicy)}, out, err), 0);
}

TEST(HealthCommand, names_the_line_of_a_wrong_policy) {
  const TempFolder folder;
  std::ostringstream out, err;
  const std::string path = folder.write(
      "policy.yaml", std::string(kPolicy) + "  - {name: b, match: {kind: xid}, severity: Fatal, message: m}\n");
  EXPECT_EQ(explain_health("XID", "94", {path}, out, err), 2);
  EXPECT_NE(err.str().find("policy.yaml:7: spec.rules[1].severity: 'Fatal' is none of: Info, Warning, Fault"),
            std::string::npos)
      << err.str();
  EXPECT_EQ(print_health_policy({"/nowhere/policy.yaml"}, out, err), 2);
}

}  // namespace
}  // namespace pitcrew::cli
