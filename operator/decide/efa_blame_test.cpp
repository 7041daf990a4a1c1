#include "operator/decide/efa_blame.hpp"

#include <gtest/gtest.h>

namespace pitcrew::control {
namespace {

const Instant kNow = *parse_rfc3339("2026-03-01T00:10:00Z");

struct Node {
  double own = 0;
  double remote = 0;
  std::vector<uint32_t> unreachable;
  Duration age = seconds(10);
};

struct Case {
  const char* what;
  std::vector<Node> nodes;
  std::optional<uint32_t> blamed;
};

std::optional<EfaBlame> blame_of(const std::vector<Node>& nodes) {
  std::vector<EfaReport> reports;
  for (uint32_t i = 0; i < nodes.size(); ++i) {
    EfaReport report{Slot(i), "n" + std::to_string(i), {}, {}};
    if (nodes[i].own > 0) report.rates.push_back({"rdmap0s29", "rx_drops", nodes[i].own, kNow - nodes[i].age});
    if (nodes[i].remote > 0) {
      // Over two devices, as the sum counts.
      report.rates.push_back({"rdmap0s29", "unresponsive_remote_events", nodes[i].remote / 2, kNow - nodes[i].age});
      report.rates.push_back({"rdmap1s29", "retrans_timeout_events", nodes[i].remote / 2, kNow - nodes[i].age});
    }
    for (const uint32_t peer : nodes[i].unreachable) report.unreachable.push_back(Slot(peer));
    reports.push_back(std::move(report));
  }
  return blame_efa(reports, kNow);
}

const Case kCases[] = {
    {"nobody says anything", {{}, {}, {}, {}}, {}},
    {"no nodes", {}, {}},
    {"one node has nobody to talk to", {{.own = 9}}, {}},
    // Reachability.
    {"all others can't reach one", {{.unreachable = {2}}, {.unreachable = {2}}, {}, {.unreachable = {2}}}, 2},
    {"more than half can't reach one", {{.unreachable = {2}}, {.unreachable = {2}}, {}, {}}, 2},
    {"half is not more than half", {{.unreachable = {4}}, {.unreachable = {4}}, {}, {}, {}}, {}},
    {"one voice is not enough", {{.unreachable = {1}}, {}, {}}, {}},
    {"of two nodes neither is to blame", {{.unreachable = {1}}, {.unreachable = {0}}}, {}},
    {"a cut through the middle blames nobody",
     {{.unreachable = {2, 3}}, {.unreachable = {2, 3}}, {.unreachable = {0, 1}}, {.unreachable = {0, 1}}},
     {}},
    {"who reaches nobody and is reached by nobody",
     {{.unreachable = {1, 2, 3}}, {.unreachable = {0}}, {.unreachable = {0}}, {.unreachable = {0}}},
     0},
    {"a node's word about itself does not count", {{.unreachable = {0}}, {.unreachable = {0}}, {}, {}}, {}},
    // A device's own errors.
    {"one alone has errors of its own", {{}, {.own = 3}, {}}, 1},
    {"of two nodes too", {{}, {.own = 3}}, 1},
    {"two have errors of their own", {{.own = 3}, {.own = 3}, {}}, {}},
    {"errors of its own among complaints of all", {{.remote = 5}, {.own = 3, .remote = 5}, {.remote = 5}}, 1},
    {"old errors are history", {{}, {.own = 3, .age = minutes(6)}, {}}, {}},
    // Counters that point at a peer.
    {"as much as all others together", {{.remote = 10}, {.remote = 30}, {.remote = 10}, {.remote = 10}}, 1},
    {"a bad node of three", {{.remote = 10}, {.remote = 20}, {.remote = 10}}, 1},
    {"a fabric in trouble blames nobody", {{.remote = 10}, {.remote = 12}, {.remote = 11}}, {}},
    {"two bad nodes", {{.remote = 40}, {.remote = 40}, {.remote = 10}, {.remote = 10}}, {}},
    {"not twice as much as the next", {{.remote = 19}, {.remote = 10}, {.remote = 1}}, {}},
    {"one complains alone of a silent peer", {{.remote = 30}, {}, {}}, {}},
    {"both ends of one path", {{.remote = 30}, {.remote = 30}, {}}, {}},
    {"of two nodes neither end is to blame", {{.remote = 30}, {.remote = 10}}, {}},
    {"old complaints are history",
     {{.remote = 10}, {.remote = 30, .age = minutes(6)}, {.remote = 10}, {.remote = 10}},
     {}},
    // The stronger sign first.
    {"reachability before counters",
     {{.remote = 30, .unreachable = {3}}, {.remote = 10, .unreachable = {3}}, {.remote = 10, .unreachable = {3}}, {}},
     3},
};

TEST(EfaBlame, of_a_jobs_nodes_the_one_at_fault_is_named_or_none) {
  for (const Case& one : kCases) {
    const auto blame = blame_of(one.nodes);
    EXPECT_EQ(blame ? std::optional(blame->slot.value) : std::nullopt, one.blamed) << one.what;
  }
}

TEST(EfaBlame, says_what_it_rests_on) {
  EXPECT_EQ(blame_of({{.remote = 10}, {.remote = 20}, {.remote = 10}})->evidence,
            "EFA: node n1 has 20/s of 40/s lost-peer events of the job");
  EXPECT_EQ(blame_of({{}, {.own = 2.5}})->evidence, "EFA: node n1 alone has errors of its own devices (2.5/s)");
  EXPECT_EQ(blame_of({{.unreachable = {2}}, {.unreachable = {2}}, {}})->evidence,
            "EFA: node n2 can't be reached by 2 of 2 others");
}

}  // namespace
}  // namespace pitcrew::control
