#pragma once

#include <string>
#include <string_view>

#include "crds/generate/schema.hpp"

// Pieces of CEL that several rules are made of. Every argument and result is the text of an expression.
namespace pitcrew::crd::cel {

// 'text', quoted as CEL wants it.
std::string quoted(std::string_view text);
// Whether a text is a duration as lib/base reads it: 30s, 1h30m, 1.5d.
std::string is_duration(const std::string& text);
// The seconds of such a text, a double.
std::string seconds_of(const std::string& text);

}  // namespace pitcrew::crd::cel

namespace pitcrew::crd {

// A whole number from 0, as lib/base reads a uint32_t; `lowest` and `highest` as lib/api checks them.
struct CountLimits {
  int64_t lowest = 0;
  std::optional<int64_t> highest;
  std::string why;  // behind "must be at least N"
  bool is_64_bit = false;
};
Schema count(std::string description, CountLimits limits);

// A duration; `at_least` is text like "10s" with its seconds. `or_auto`: the word auto is as good.
struct DurationLimits {
  std::string at_least;
  double seconds = 0;
  bool or_auto = false;
};
Schema duration(std::string description, DurationLimits limits = {});

// One of these words.
Schema one_of(std::string description, const std::vector<std::string>& words);

// Bounds that only keep the estimated cost of rules finite; the rules' own limits are tighter.
inline constexpr size_t kMaxDurationText = 64;
inline constexpr size_t kMaxPath = 512;
inline constexpr size_t kMaxName = 253;

}  // namespace pitcrew::crd
