#pragma once

#include <vector>

#include "lib/api/channel.hpp"

namespace pitcrew::launcher {

// The slots that keep the copies of `self`: of self+1, self+2, … modulo the number of replicas, those on other nodes
// first. Fewer than `copies` where the table has fewer others. Pure: all launchers of an epoch come to the same answer.
std::vector<Slot> copy_holders(const std::vector<api::channel::TableEntry>& table, Slot self, uint32_t copies);

// The slots whose launchers `self` watches: the next two.
std::vector<Slot> watched_slots(const std::vector<api::channel::TableEntry>& table, Slot self);

const api::channel::TableEntry* find_slot(const std::vector<api::channel::TableEntry>& table, Slot slot);

}  // namespace pitcrew::launcher
