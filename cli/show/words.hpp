#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "lib/base/time.hpp"

namespace pitcrew::cli {

// Numbers as people say them.
std::string spoken(Duration duration);                           // 12.4 s, 3m 20s, 5h 12m, 2d 4h
std::string ago(Instant now, Instant then);                      // 12s ago
std::string clock_time(Instant now, Instant then);               // 02:14:07Z, with the date where it is another day's
std::string grouped(uint64_t number);                            // 12,400
std::string rate(double per_second);                             // 41.2k
std::string bytes(uint64_t bytes);                               // 15.9 GB
std::string percent(double share);                               // 93%
std::string count_of(uint64_t number, const std::string& noun);  // "1 pod", "3 pods"
// "a, b and 3 more"
template <typename List>
std::string some_of(const List& list, size_t most = 3) {
  std::string out;
  size_t shown = 0;
  for (const auto& item : list) {
    if (shown == most && list.size() > most) {
      return out + " and " + std::to_string(list.size() - shown) + " more";
    }
    out += (out.empty() ? "" : ", ") + std::string(item);
    ++shown;
  }
  return out;
}

}  // namespace pitcrew::cli
