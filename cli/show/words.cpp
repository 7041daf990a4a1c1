#include "cli/show/words.hpp"

#include <cmath>
#include <cstdio>

namespace pitcrew::cli {
namespace {

std::string printed(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

}  // namespace

std::string spoken(Duration duration) {
  if (duration < Duration(0)) duration = Duration(0);
  const double seconds = to_seconds(duration);
  if (seconds < 10) return printed("%.1fs", seconds);
  const auto whole = static_cast<long long>(seconds);
  if (whole < 60) return std::to_string(whole) + "s";
  const auto two = [](long long big, const char* unit, long long small, const char* small_unit) {
    return std::to_string(big) + unit + (small == 0 ? "" : " " + std::to_string(small) + small_unit);
  };
  if (whole < 600) return two(whole / 60, "m", whole % 60, "s");
  if (whole < 3600) return std::to_string(whole / 60) + "m";
  if (whole < 48 * 3600) return two(whole / 3600, "h", whole / 60 % 60, "m");
  return two(whole / 86400, "d", whole / 3600 % 24, "h");
}

std::string ago(Instant now, Instant then) {
  return now - then < seconds(1) ? "just now" : spoken(now - then) + " ago";
}

std::string clock_time(Instant now, Instant then) {
  const std::string text = to_rfc3339(then);
  return text.substr(0, 10) == to_rfc3339(now).substr(0, 10) ? text.substr(11)
                                                             : text.substr(5, 5) + " " + text.substr(11);
}

std::string grouped(uint64_t number) {
  std::string digits = std::to_string(number);
  for (size_t at = digits.size(); at > 3; at -= 3) digits.insert(at - 3, ",");
  return digits;
}

std::string rate(double per_second) {
  if (per_second >= 1e6) return printed("%.2fM", per_second / 1e6);
  if (per_second >= 1e4) return printed("%.1fk", per_second / 1e3);
  return printed(per_second < 10 ? "%.2f" : "%.0f", per_second);
}

std::string bytes(uint64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (value >= 1e12) return printed("%.2f TB", value / 1e12);
  if (value >= 1e9) return printed("%.1f GB", value / 1e9);
  if (value >= 1e6) return printed("%.1f MB", value / 1e6);
  if (value >= 1e3) return printed("%.0f kB", value / 1e3);
  return printed("%.0f bytes", value);
}

std::string percent(double share) { return printed("%.0f%%", std::floor(share * 100 + 0.5)); }

std::string count_of(uint64_t number, const std::string& noun) {
  return std::to_string(number) + " " + noun + (number == 1 ? "" : "s");
}

}  // namespace pitcrew::cli
