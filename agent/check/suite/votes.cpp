#include "agent/check/suite/votes.hpp"

#include <algorithm>
#include <map>

namespace pitcrew::check {

std::vector<Vote> compare_burns(const std::vector<std::vector<uint64_t>>& digests) {
  std::map<uint64_t, size_t> counts;
  size_t all = 0;
  for (const auto& device : digests) {
    // A device's voice weighs what its repetitions are: one that is fast and wrong must not outvote the others.
    std::map<uint64_t, size_t> own;
    for (const uint64_t digest : device) ++own[digest];
    if (own.empty()) continue;
    const auto most =
        std::max_element(own.begin(), own.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
    ++counts[most->first];
    ++all;
  }
  std::vector<Vote> votes(digests.size());
  if (counts.empty()) return votes;
  const auto majority =
      std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  const bool decided = 2 * majority->second > all;
  for (size_t i = 0; i < digests.size(); ++i) {
    if (digests[i].empty()) continue;
    const uint64_t right = decided ? majority->first : digests[i].front();
    const auto wrong = static_cast<size_t>(
        std::count_if(digests[i].begin(), digests[i].end(), [&](uint64_t digest) { return digest != right; }));
    const std::string of = std::to_string(wrong) + " of " + std::to_string(digests[i].size()) + " repetitions";
    if (wrong > 0) {
      votes[i] = {false,
                  of + (all > 1 && decided ? " gave other bits than most GPUs" : " gave other bits than the first")};
    } else if (!decided) {
      votes[i] = {false, "GPUs differ in their bits and no majority says which is right"};
    }
  }
  return votes;
}

}  // namespace pitcrew::check
