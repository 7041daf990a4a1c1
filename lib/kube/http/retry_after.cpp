#include "lib/kube/http/retry_after.hpp"

#include <algorithm>
#include <charconv>
#include <ctime>
#include <string>

namespace pitcrew::kube {
namespace {

constexpr Duration kLongest = hours(1);

}  // namespace

std::optional<Duration> parse_retry_after(std::string_view text, Instant now) {
  uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc() && end == text.data() + text.size()) return std::min<Duration>(seconds(number), kLongest);
  if (error == std::errc::result_out_of_range) return kLongest;
  struct tm parts {};
  const std::string date(text);
  const char* rest = ::strptime(date.c_str(), "%a, %d %b %Y %H:%M:%S GMT", &parts);
  if (rest == nullptr || *rest != '\0') return std::nullopt;
  const Instant at{seconds(::timegm(&parts))};
  return std::clamp<Duration>(at - now, Duration(0), kLongest);
}

}  // namespace pitcrew::kube
