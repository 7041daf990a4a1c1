#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/net/address.hpp"

namespace pitcrew::net {

// Header fields in the order in which they came.
using Headers = std::vector<std::pair<std::string, std::string>>;
// The first value of a field, its name compared without case; null where there is none.
const std::string* find_header(const Headers& headers, std::string_view name);

struct HttpRequest {
  std::string method = "GET";
  std::string target = "/";  // path and query as sent, percent-encoded
  Headers headers;
  std::string body;
  Address peer;  // filled in by the server

  std::string_view path() const;   // of the target
  std::string_view query() const;  // of the target, without '?'; empty where there is none
};

struct HttpResponse {
  int status = 200;
  Headers headers;  // Content-Length, Transfer-Encoding and Connection are the server's to set
  std::string body;
};

HttpResponse text_response(int status, std::string text);       // text/plain
HttpResponse json_response(int status, std::string json_text);  // application/json

// "%2F" → "/", in queries also '+' → ' '; wrong escapes stay as they are.
std::string percent_decode(std::string_view text, bool plus_is_space = false);
// "a=1&b=x%20y" decoded, in order.
std::vector<std::pair<std::string, std::string>> parse_query(std::string_view query);

}  // namespace pitcrew::net
