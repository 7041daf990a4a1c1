#include "operator/repair/check_limit.hpp"

#include <gtest/gtest.h>

namespace pitcrew::control {
namespace {

Instant at(int minute) { return Instant(minutes(minute)); }
using Names = std::set<std::string>;

TEST(CheckLimit, is_the_larger_of_nodes_and_fraction) {
  struct Row {
    CheckLimit limit;
    size_t nodes, at_once;
  };
  for (const Row& row : std::vector<Row>{{{2, 0.1}, 0, 2},
                                         {{2, 0.1}, 3, 2},
                                         {{2, 0.1}, 20, 2},
                                         {{2, 0.1}, 29, 2},
                                         {{2, 0.1}, 30, 3},
                                         {{2, 0.1}, 1000, 100},
                                         {{1, 0}, 1000, 1},
                                         {{5, 0.1}, 10, 5},
                                         {{1, 1}, 7, 7}}) {
    EXPECT_EQ(checks_at_once(row.limit, row.nodes), row.at_once)
        << row.limit.nodes << " " << row.limit.fraction << " of " << row.nodes;
  }
}

TEST(CheckLimit, lets_begin_what_people_ask_for_and_then_the_oldest_fault) {
  const std::vector<DueCheck> due{{"young", false, at(9)}, {"old", false, at(1)},    {"asked-b", true, {}},
                                  {"asked-a", true, {}},   {"same-b", false, at(5)}, {"same-a", false, at(5)}};
  struct Row {
    size_t running, limit;
    Names begin;
  };
  for (const Row& row : std::vector<Row>{{0, 1, {"asked-a"}},
                                         {0, 2, {"asked-a", "asked-b"}},
                                         {1, 2, {"asked-a"}},
                                         {2, 2, {}},
                                         {9, 2, {}},
                                         {0, 3, {"asked-a", "asked-b", "old"}},
                                         {0, 4, {"asked-a", "asked-b", "old", "same-a"}},
                                         {0, 5, {"asked-a", "asked-b", "old", "same-a", "same-b"}},
                                         {0, 100, {"asked-a", "asked-b", "old", "same-a", "same-b", "young"}}}) {
    EXPECT_EQ(checks_to_begin(due, row.running, row.limit), row.begin) << row.running << " of " << row.limit;
  }
  EXPECT_EQ(checks_to_begin({}, 0, 2), Names());
}

}  // namespace
}  // namespace pitcrew::control
