#pragma once

#include <optional>
#include <string_view>

#include "lib/base/time.hpp"

namespace pitcrew::kube {

// A Retry-After field (RFC 9110, 10.2.3): seconds, or a date in the IMF format, which is taken relative to `now`. At
// most an hour; nothing where it is neither.
std::optional<Duration> parse_retry_after(std::string_view text, Instant now);

}  // namespace pitcrew::kube
