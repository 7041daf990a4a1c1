#pragma once

// Internal to lib/net.

#include <memory>
#include <set>

#include "lib/net/http_server.hpp"
#include "lib/net/listener.hpp"

namespace pitcrew::net::internal {

class HttpConnection;

// What the connections of one server share.
struct HttpServerShared {
  HttpServerShared(AsioLoop& l, HttpServerSettings s, HttpHandler h, Logger g)
      : loop(l),
        settings(std::move(s)),
        handler(std::make_shared<const HttpHandler>(std::move(h))),
        log(std::move(g)) {}
  AsioLoop& loop;
  HttpServerSettings settings;
  std::shared_ptr<const HttpHandler> handler;  // may be running while the server is destroyed
  Logger log;
  SslContextPtr tls;
  std::set<std::shared_ptr<HttpConnection>> connections;
};

// Begins to serve a connection; it keeps itself in shared->connections until it ends.
void serve_http(const std::shared_ptr<HttpServerShared>& shared, Stream stream, Address peer, ConnectionSlot slot);
// Ends all of them.
void end_http_connections(HttpServerShared& shared);

}  // namespace pitcrew::net::internal
