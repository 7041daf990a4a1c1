#include "lib/net/http_server.hpp"

#include "lib/net/http_connection.hpp"

namespace pitcrew::net {

Status HttpServerSettings::validate() const {
  const auto wrong = [](std::string_view what) {
    return Error(Code::kInvalidArgument, "HTTP server: " + std::string(what));
  };
  if (max_connections == 0) return wrong("max_connections must be at least 1");
  if (max_head_bytes < 256) return wrong("max_head_bytes must be at least 256");
  if (request_timeout <= Duration(0) || idle_timeout <= Duration(0) || write_timeout <= Duration(0)) {
    return wrong("every time-out must be above 0");
  }
  if (identity) return check(*identity);
  return {};
}

namespace {

class Server final : public HttpServer {
 public:
  explicit Server(std::shared_ptr<internal::HttpServerShared> shared) : shared_(std::move(shared)) {}
  ~Server() override {
    listener_.reset();
    internal::end_http_connections(*shared_);
    shared_->handler.reset();
  }

  Status start() {
    const HttpServerSettings& settings = shared_->settings;
    internal::ListenerSettings listen{settings.address, settings.max_connections, settings.request_timeout};
    if (settings.identity) {
      PITCREW_TRY(set_identity(*settings.identity));
      listen.make_tls = [shared = shared_] { return internal::server_tls(shared->tls); };
    }
    internal::ListenerHandler handler;
    handler.on_stream = [shared = shared_](internal::Stream stream, Address peer, internal::ConnectionSlot slot) {
      internal::serve_http(shared, std::move(stream), std::move(peer), std::move(slot));
    };
    handler.on_handshake_failed = [shared = shared_](const Error& error) { shared->log.debug(error.message); };
    PITCREW_ASSIGN(listener_, internal::Listener::open(shared_->loop, std::move(listen), std::move(handler)));
    return {};
  }

  Address address() const override { return listener_->address(); }
  size_t connections() const override { return listener_->connections(); }
  uint64_t refused_connections() const override { return listener_->refused(); }
  Status set_identity(const TlsServerIdentity& identity) override {
    PITCREW_ASSIGN(shared_->tls, internal::server_context(identity));
    return {};
  }

 private:
  std::shared_ptr<internal::HttpServerShared> shared_;
  std::unique_ptr<internal::Listener> listener_;
};

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::listen(AsioLoop& loop, HttpServerSettings settings, HttpHandler handler,
                                                       Logger log) {
  PITCREW_TRY(settings.validate());
  auto server = std::make_unique<Server>(
      std::make_shared<internal::HttpServerShared>(loop, std::move(settings), std::move(handler), std::move(log)));
  PITCREW_TRY(server->start());
  return std::unique_ptr<HttpServer>(std::move(server));
}

}  // namespace pitcrew::net
