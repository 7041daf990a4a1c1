#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "lib/net/asio_loop.hpp"
#include "lib/net/http_message.hpp"
#include "lib/net/tls.hpp"

namespace pitcrew::net {

struct HttpClientSettings {
  Address address;
  std::optional<TlsTrust> trust;             // set: TLS
  std::string host;                          // the Host header; empty: the address
  Duration connect_timeout = seconds(5);     // TCP and TLS
  Duration timeout = seconds(30);            // to the response's end; with a stream: between two pieces of it
  size_t max_body_bytes = 16 * 1024 * 1024;  // not counted where on_piece takes the body
};

// One exchange under way; destroying it abandons the exchange, and its functions are not called again.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;
};
using HttpExchangePtr = std::unique_ptr<HttpExchange>;

struct HttpExchangeHandler {
  // Once: the whole response (its body empty where on_piece took it), or why there is none.
  std::function<void(Result<HttpResponse> response)> on_done;
  // If set: the body's pieces as they come.
  std::function<void(std::string_view piece)> on_piece = {};
};

// One request on a connection of its own: for tests, probes and small calls.
HttpExchangePtr http_request(AsioLoop& loop, HttpClientSettings settings, HttpRequest request,
                             HttpExchangeHandler handler);

}  // namespace pitcrew::net
