#pragma once

#include <compare>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pitcrew::agent::versions {

// "2.1.0amzn5.0" → 2, 1, 0: the leading numbers between dots; what follows says who built it and does not count.
struct Version {
  std::vector<unsigned> numbers;  // at least one, at most four
  std::strong_ordering operator<=>(const Version& other) const;
  bool operator==(const Version& other) const { return (*this <=> other) == 0; }
};
std::optional<Version> parse_version(std::string_view text);

// Versions of which one is from `from` on and below `below`; empty: no such limit.
struct Range {
  std::string_view component;
  std::string_view from, below;
};
// Two ranges that do not work together, and who says so.
struct Clash {
  Range one, other;
  std::string_view why;
  std::string_view source;
};
std::span<const Clash> known_clashes();

using Versions = std::map<std::string, std::string, std::less<>>;  // component → version

// Each clash of what is there, with the pair: "nccl 2.19.3 with efa-installer 1.28.0: …".
std::vector<std::string> find_clashes(const Versions& versions);

}  // namespace pitcrew::agent::versions
