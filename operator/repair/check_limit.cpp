#include "operator/repair/check_limit.hpp"

#include <algorithm>
#include <tuple>

namespace pitcrew::control {

size_t checks_at_once(const CheckLimit& limit, size_t nodes) {
  return std::max<size_t>(limit.nodes, static_cast<size_t>(limit.fraction * static_cast<double>(nodes)));
}

std::set<std::string> checks_to_begin(std::vector<DueCheck> due, size_t running, size_t limit) {
  const size_t room = limit > running ? limit - running : 0;
  std::sort(due.begin(), due.end(), [](const DueCheck& a, const DueCheck& b) {
    return std::tuple(!a.requested, a.since, a.health) < std::tuple(!b.requested, b.since, b.health);
  });
  std::set<std::string> begin;
  for (size_t i = 0; i < std::min(room, due.size()); ++i) begin.insert(due[i].health);
  return begin;
}

}  // namespace pitcrew::control
