#include "lib/net/listener.hpp"
#include "lib/net/psk.hpp"
#include "lib/net/psk_connection_impl.hpp"
#include "lib/net/psk_context.hpp"

namespace pitcrew::net {

Status PskServer::Settings::validate() const {
  if (max_connections == 0) return Error(Code::kInvalidArgument, "PSK server: max_connections must be at least 1");
  return connection.validate();
}

namespace {

class Server final : public PskServer {
 public:
  Server(AsioLoop& loop, Settings settings, Handler handler, Logger log)
      : shared_(std::make_shared<Shared>(Shared{loop, std::move(settings), std::move(handler), std::move(log)})) {}

  Status start(std::vector<PskKey> keys) {
    PITCREW_TRY(set_keys(std::move(keys)));
    const Settings& settings = shared_->settings;
    internal::ListenerSettings listen{settings.address, settings.max_connections,
                                      settings.connection.handshake_timeout};
    listen.make_tls = [shared = shared_] { return internal::psk_server_tls(shared->context, shared->keys); };
    internal::ListenerHandler handler;
    handler.on_stream = [shared = shared_](internal::Stream stream, Address peer, internal::ConnectionSlot slot) {
      shared->handler(internal::accepted_psk_connection(shared->loop, std::move(stream), std::move(peer),
                                                        std::move(slot), shared->settings.connection));
    };
    handler.on_handshake_failed = [shared = shared_](const Error& error) {
      ++shared->refused;
      shared->log.info("launcher refused", {{"reason", error.message}});
    };
    PITCREW_ASSIGN(listener_, internal::Listener::open(shared_->loop, std::move(listen), std::move(handler)));
    return {};
  }

  Address address() const override { return listener_->address(); }
  uint64_t refused_handshakes() const override { return shared_->refused; }

  Status set_keys(std::vector<PskKey> keys) override {
    auto table = std::make_shared<internal::PskKeys>();
    for (PskKey& key : keys) {
      PITCREW_TRY(internal::check(key));
      table->insert_or_assign(std::move(key.identity), std::move(key.key));
    }
    shared_->keys = std::move(table);
    return {};
  }

 private:
  struct Shared {
    AsioLoop& loop;
    Settings settings;
    Handler handler;
    Logger log;
    internal::SslContextPtr context = internal::psk_context(true);
    std::shared_ptr<const internal::PskKeys> keys = {};
    uint64_t refused = 0;
  };
  std::shared_ptr<Shared> shared_;
  std::unique_ptr<internal::Listener> listener_;
};

}  // namespace

Result<std::unique_ptr<PskServer>> PskServer::listen(AsioLoop& loop, Settings settings, std::vector<PskKey> keys,
                                                     Handler handler, Logger log) {
  PITCREW_TRY(settings.validate());
  auto server = std::make_unique<Server>(loop, std::move(settings), std::move(handler), std::move(log));
  PITCREW_TRY(server->start(std::move(keys)));
  return std::unique_ptr<PskServer>(std::move(server));
}

}  // namespace pitcrew::net
