#pragma once

// Internal to lib/net: HTTP/1.1 heads and chunks as text. Parsing is Beast's.

#include <optional>
#include <string>

#include "lib/net/http_message.hpp"

namespace pitcrew::net::internal {

enum class BodyFraming { kLength, kChunked, kUntilClose };

// Fields that the server sets itself are left out, line breaks in values become blanks.
std::string response_head(const HttpResponse& response, BodyFraming framing, bool keep_alive);
std::string request_head(const HttpRequest& request, const std::string& host, bool keep_alive = false);
std::string chunk(std::string_view piece);
inline constexpr std::string_view kLastChunk = "0\r\n\r\n";

}  // namespace pitcrew::net::internal
