#include "launcher/memory/placement.hpp"

#include <algorithm>

namespace pitcrew::launcher {
namespace {

constexpr size_t kWatched = 2;

// All others, the next one first.
std::vector<const api::channel::TableEntry*> after(const std::vector<api::channel::TableEntry>& table, Slot self) {
  std::vector<const api::channel::TableEntry*> others;
  for (const auto& entry : table) {
    if (entry.slot != self) others.push_back(&entry);
  }
  std::sort(others.begin(), others.end(), [&](const auto* a, const auto* b) {
    return std::pair(a->slot < self, a->slot) < std::pair(b->slot < self, b->slot);
  });
  return others;
}

}  // namespace

std::vector<Slot> copy_holders(const std::vector<api::channel::TableEntry>& table, Slot self, uint32_t copies) {
  const auto* own = find_slot(table, self);
  auto others = after(table, self);
  if (own != nullptr) {
    std::stable_partition(others.begin(), others.end(), [&](const auto* other) { return other->node != own->node; });
  }
  std::vector<Slot> holders;
  for (const auto* other : others) {
    if (holders.size() < copies) holders.push_back(other->slot);
  }
  return holders;
}

std::vector<Slot> watched_slots(const std::vector<api::channel::TableEntry>& table, Slot self) {
  std::vector<Slot> watched;
  for (const auto* other : after(table, self)) {
    if (watched.size() < kWatched) watched.push_back(other->slot);
  }
  return watched;
}

const api::channel::TableEntry* find_slot(const std::vector<api::channel::TableEntry>& table, Slot slot) {
  const auto found = std::find_if(table.begin(), table.end(), [&](const auto& entry) { return entry.slot == slot; });
  return found == table.end() ? nullptr : &*found;
}

}  // namespace pitcrew::launcher
