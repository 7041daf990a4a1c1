#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace pitcrew::check {

// What became of one device when all computed the same thing again and again.
struct Vote {
  bool good = true;
  std::string message;
};

// Compares digests by device and repetition, bit for bit. Most decide: a device with a repetition that differs from
// what most repetitions of all devices gave is bad. Where there is no such majority (two devices, each true to itself),
// each that is in doubt is called bad, since nobody can tell which; one device is compared with itself. Pure.
std::vector<Vote> compare_burns(const std::vector<std::vector<uint64_t>>& digests);

}  // namespace pitcrew::check
