#include "launcher/memory/placement.hpp"

#include <gtest/gtest.h>

namespace pitcrew::launcher {
namespace {

std::vector<api::channel::TableEntry> table(const std::vector<std::string>& nodes) {
  std::vector<api::channel::TableEntry> entries;
  for (uint32_t i = 0; i < nodes.size(); ++i) entries.push_back({.slot = Slot(i), .node = nodes[i]});
  return entries;
}

std::vector<uint32_t> numbers(const std::vector<Slot>& slots) {
  std::vector<uint32_t> out;
  for (const Slot slot : slots) out.push_back(slot.value);
  return out;
}

TEST(Placement, copies_go_to_the_next_slots_on_other_nodes_first) {
  struct Row {
    std::vector<std::string> nodes;
    uint32_t self, copies;
    std::vector<uint32_t> holders;
  };
  const std::vector<Row> rows{
      {{"a", "b", "c", "d"}, 0, 1, {1}},
      {{"a", "b", "c", "d"}, 3, 1, {0}},
      {{"a", "b", "c", "d"}, 2, 2, {3, 0}},
      {{"a", "a", "b", "b"}, 0, 1, {2}},
      {{"a", "a", "b", "b"}, 2, 2, {0, 1}},
      {{"a", "a", "b"}, 0, 2, {2, 1}},
      {{"a", "a"}, 0, 1, {1}},
      {{"a", "b"}, 0, 5, {1}},
      {{"a"}, 0, 1, {}},
      {{"a", "b", "c"}, 1, 0, {}},
  };
  for (const Row& row : rows)
    EXPECT_EQ(numbers(copy_holders(table(row.nodes), Slot(row.self), row.copies)), row.holders);
}

TEST(Placement, every_slot_keeps_as_many_copies_as_it_makes_where_nodes_are_single) {
  for (uint32_t n = 2; n < 12; ++n) {
    std::vector<std::string> nodes;
    for (uint32_t i = 0; i < n; ++i) nodes.push_back(std::to_string(i));
    std::vector<int> kept(n);
    for (uint32_t i = 0; i < n; ++i) {
      for (const Slot holder : copy_holders(table(nodes), Slot(i), 1)) ++kept[holder.value];
    }
    EXPECT_EQ(kept, std::vector<int>(n, 1));
  }
}

TEST(Placement, the_order_of_the_table_does_not_matter) {
  auto entries = table({"a", "b", "c", "d"});
  std::swap(entries[0], entries[3]);
  EXPECT_EQ(numbers(copy_holders(entries, Slot(2), 2)), (std::vector<uint32_t>{3, 0}));
}

TEST(Placement, the_next_two_are_watched) {
  EXPECT_EQ(numbers(watched_slots(table({"a", "b", "c", "d"}), Slot(3))), (std::vector<uint32_t>{0, 1}));
  EXPECT_EQ(numbers(watched_slots(table({"a", "b"}), Slot(1))), (std::vector<uint32_t>{0}));
  EXPECT_EQ(numbers(watched_slots(table({"a"}), Slot(0))), std::vector<uint32_t>{});
}

}  // namespace
}  // namespace pitcrew::launcher
