#include "lib/base/time.hpp"

#include <array>
#include <cmath>
#include <cstdio>
#include <limits>

namespace pitcrew {
namespace {

using std::chrono::day;
using std::chrono::days;
using std::chrono::month;
using std::chrono::sys_days;
using std::chrono::year;
using std::chrono::year_month_day;

// Reads exactly `width` digits at `at` and moves `at` behind them; -1 where there are none.
int digits(std::string_view text, size_t& at, size_t width) {
  if (at + width > text.size()) return -1;
  int value = 0;
  for (size_t i = 0; i < width; ++i) {
    const char c = text[at + i];
    if (c < '0' || c > '9') return -1;
    value = value * 10 + (c - '0');
  }
  at += width;
  return value;
}

bool literal(std::string_view text, size_t& at, char c) {
  if (at >= text.size() || text[at] != c) return false;
  ++at;
  return true;
}

Error bad_time(std::string_view text) {
  return Error(Code::kInvalidArgument,
               "'" + std::string(text) + "' is not a time; write it like 2026-03-01T02:14:07Z (RFC 3339)");
}

// The unit at `at`, in nanoseconds, and how many characters it takes; 0 where there is none.
std::pair<double, size_t> unit_at(std::string_view text) {
  static constexpr std::array<std::pair<std::string_view, double>, 7> kUnits{
      {{"ns", 1.0}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}, {"d", 86400e9}}};
  for (const auto& [name, nanoseconds] : kUnits) {
    if (text.substr(0, name.size()) == name) return {nanoseconds, name.size()};
  }
  return {0.0, 0};
}

}  // namespace

std::string to_rfc3339(Instant time, int fraction_digits) {
  const auto since_epoch = time.since_epoch();
  const auto whole_days = std::chrono::floor<days>(since_epoch);
  const year_month_day date{sys_days(whole_days)};
  const std::chrono::hh_mm_ss clock(since_epoch - whole_days);
  char buffer[64];
  int length = std::snprintf(buffer, sizeof buffer, "%04d-%02u-%02uT%02d:%02d:%02d", static_cast<int>(date.year()),
                             static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                             static_cast<int>(clock.hours().count()), static_cast<int>(clock.minutes().count()),
                             static_cast<int>(clock.seconds().count()));
  std::string text(buffer, static_cast<size_t>(length));
  if (fraction_digits > 0) {
    char fraction[16];
    std::snprintf(fraction, sizeof fraction, "%09lld", static_cast<long long>(clock.subseconds().count()));
    text += '.';
    text.append(fraction, static_cast<size_t>(std::min(fraction_digits, 9)));
  }
  text += 'Z';
  return text;
}

Result<Instant> parse_rfc3339(std::string_view text) {
  size_t at = 0;
  const int y = digits(text, at, 4);
  if (y < 0 || !literal(text, at, '-')) return bad_time(text);
  const int mo = digits(text, at, 2);
  if (mo < 1 || mo > 12 || !literal(text, at, '-')) return bad_time(text);
  const int d = digits(text, at, 2);
  const year_month_day date{year(y), month(static_cast<unsigned>(mo)), day(static_cast<unsigned>(d < 0 ? 0 : d))};
  if (!date.ok() || !(literal(text, at, 'T') || literal(text, at, 't'))) return bad_time(text);
  const int h = digits(text, at, 2);
  if (h < 0 || h > 23 || !literal(text, at, ':')) return bad_time(text);
  const int mi = digits(text, at, 2);
  if (mi < 0 || mi > 59 || !literal(text, at, ':')) return bad_time(text);
  const int s = digits(text, at, 2);
  if (s < 0 || s > 60) return bad_time(text);
  Duration fraction{0};
  if (literal(text, at, '.')) {
    int64_t scale = 100'000'000;
    const size_t first = at;
    while (at < text.size() && text[at] >= '0' && text[at] <= '9') {
      fraction += Duration((text[at] - '0') * scale);
      scale /= 10;
      ++at;
    }
    if (at == first) return bad_time(text);
  }
  Duration offset{0};
  if (!literal(text, at, 'Z') && !literal(text, at, 'z')) {
    if (at >= text.size() || (text[at] != '+' && text[at] != '-')) return bad_time(text);
    const int sign = text[at] == '-' ? -1 : 1;
    ++at;
    const int oh = digits(text, at, 2);
    if (oh < 0 || oh > 23 || !literal(text, at, ':')) return bad_time(text);
    const int om = digits(text, at, 2);
    if (om < 0 || om > 59) return bad_time(text);
    offset = sign * (hours(oh) + minutes(om));
  }
  if (at != text.size()) return bad_time(text);
  // Nanoseconds in 64 bits reach from 1678 to 2262.
  if (y < 1700 || y > 2250) return bad_time(text);
  return Instant(Duration(sys_days(date).time_since_epoch()) + hours(h) + minutes(mi) + seconds(s) + fraction - offset);
}

Result<Duration> parse_duration(std::string_view text) {
  const auto bad = [&] {
    return Error(Code::kInvalidArgument,
                 "'" + std::string(text) + "' is not a duration; write it like 30s, 10m, 1h30m or 72h");
  };
  if (text == "0") return Duration(0);
  double total = 0;
  size_t at = 0;
  if (text.empty()) return bad();
  while (at < text.size()) {
    const size_t first = at;
    double number = 0;
    double scale = 0;
    for (; at < text.size() && ((text[at] >= '0' && text[at] <= '9') || (text[at] == '.' && scale == 0)); ++at) {
      if (text[at] == '.') {
        scale = 1;
      } else if (scale > 0) {
        scale /= 10;
        number += (text[at] - '0') * scale;
      } else {
        number = number * 10 + (text[at] - '0');
      }
    }
    if (at == first || (at == first + 1 && text[first] == '.')) return bad();
    const auto [nanoseconds, length] = unit_at(text.substr(at));
    if (length == 0) return bad();
    at += length;
    total += number * nanoseconds;
    if (total > static_cast<double>(std::numeric_limits<int64_t>::max()) / 4) return bad();
  }
  return Duration(static_cast<int64_t>(std::llround(total)));
}

std::string to_string(Duration duration) {
  if (duration < Duration(0)) return "-" + to_string(-duration);
  if (duration == Duration(0)) return "0s";
  const auto whole_hours = std::chrono::floor<hours>(duration);
  const auto whole_minutes = std::chrono::floor<minutes>(duration - whole_hours);
  const Duration rest = duration - whole_hours - whole_minutes;
  std::string text;
  if (whole_hours.count() > 0) text += std::to_string(whole_hours.count()) + "h";
  if (whole_minutes.count() > 0) text += std::to_string(whole_minutes.count()) + "m";
  if (rest.count() == 0) return text;
  if (text.empty() && rest < seconds(1)) {
    char buffer[32];
    std::snprintf(buffer, sizeof buffer, "%gms", static_cast<double>(rest.count()) / 1e6);
    return buffer;
  }
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.9g", to_seconds(rest));
  return text + buffer + "s";
}

}  // namespace pitcrew
