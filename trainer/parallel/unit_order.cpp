#include "trainer/parallel/unit_order.hpp"

#include <algorithm>
#include <array>

namespace pitcrew::trainer {

uint32_t unit_slot(uint32_t unit, uint32_t units, bool tied) {
  if (unit == 0) return 0;
  if (unit + 1 == units) return tied ? 3 : 0;
  return 1 + (unit - 1) % 2;
}

std::vector<uint64_t> unit_slot_elements(const ShardLayout& layout, bool tied) {
  std::vector<uint64_t> elements(kUnitSlots);
  for (uint32_t unit = 0; unit < layout.units(); ++unit) {
    uint64_t& slot = elements[unit_slot(unit, layout.units(), tied)];
    slot = std::max(slot, layout.gathered(unit));
  }
  return elements;
}

std::vector<uint32_t> unit_order(uint32_t units, bool tied, bool backward) {
  const uint32_t last = units - 1;
  std::vector<uint32_t> order;
  for (uint32_t unit = 0; unit <= last; ++unit) order.push_back(unit);
  order.push_back(tied ? 0 : last);
  if (!backward) return order;
  for (uint32_t unit = last; unit > 0; --unit) order.push_back(unit);
  return order;
}

std::vector<uint32_t> gathered_units(uint32_t units, bool tied, uint32_t passes) {
  std::array<uint32_t, kUnitSlots> there;
  there.fill(units);
  std::vector<uint32_t> gathered;
  for (uint32_t pass = 0; pass < passes; ++pass) {
    for (const uint32_t unit : unit_order(units, tied, true)) {
      uint32_t& slot = there[unit_slot(unit, units, tied)];
      if (slot != unit) gathered.push_back(unit);
      slot = unit;
    }
  }
  return gathered;
}

}  // namespace pitcrew::trainer
