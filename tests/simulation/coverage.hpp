#pragma once

#include <map>
#include <string>

#include "tests/simulation/world.hpp"

namespace pitcrew::simulation {

// Which fault led to which rung, over many seeds.
class Coverage {
 public:
  void add(const World& world);
  void merge(const Coverage& other);
  // The table, and the cells that should have been hit more often.
  std::string table() const;
  std::vector<std::string> below(uint64_t times) const;

 private:
  std::map<std::string, std::map<std::string, uint64_t>> cells_;  // fault → rung → times
};

}  // namespace pitcrew::simulation
