#include "lib/net/websocket_client.hpp"

#include "lib/net/connector.hpp"
#include "lib/net/websocket_session_impl.hpp"

namespace pitcrew::net {

namespace {

class Client final : public WebSocketClient {
 public:
  Client(AsioLoop& loop, WebSocketClientSettings settings, WebSocketClientHandler handler)
      : state_(std::make_shared<State>(loop, std::move(settings), std::move(handler))) {
    state_->begin();
  }
  ~Client() override {
    state_->ended = true;
    state_->connector.reset();
    state_->deadline.reset();
    if (state_->session) state_->session->cut();
  }
  WebSocketSessionPtr session() const override {
    return state_->session && state_->opened && !state_->ended ? state_->session : nullptr;
  }

 private:
  struct State : std::enable_shared_from_this<State> {
    State(AsioLoop& l, WebSocketClientSettings s, WebSocketClientHandler h)
        : loop(l), settings(std::move(s)), handler(std::move(h)), started(l.now()) {}

    AsioLoop& loop;
    WebSocketClientSettings settings;
    WebSocketClientHandler handler;
    Instant started;
    std::unique_ptr<internal::Connector> connector;
    std::shared_ptr<internal::SessionImpl> session;
    Loop::TimerPtr deadline;
    bool opened = false;
    bool ended = false;

    void begin() {
      auto tls =
          settings.trust ? internal::client_tls(*settings.trust) : Result<internal::TlsState>(internal::TlsState{});
      connector = std::make_unique<internal::Connector>(
          loop, settings.address, std::move(tls), settings.connect_timeout,
          [this](Result<internal::Stream> stream) { connected(std::move(stream)); });
    }

    void connected(Result<internal::Stream> stream) {
      const auto self = shared_from_this();
      if (!stream) return closed({close_code::kAbnormal, stream.error().message});
      internal::SessionImpl::Events events;
      const std::weak_ptr<State> weak = self;
      events.on_open = [weak] {
        if (const auto state = weak.lock(); state && !state->ended) state->open();
      };
      events.on_message = [weak](std::string text) {
        const auto state = weak.lock();
        if (state && !state->ended && state->handler.on_message) state->handler.on_message(std::move(text));
      };
      events.on_close = [weak](const WebSocketClose& close) {
        if (const auto state = weak.lock()) state->closed(close);
      };
      session = std::make_shared<internal::SessionImpl>(
          loop, *std::move(stream), settings.address,
          internal::SessionSettings{settings.max_message_bytes, settings.max_queue_bytes, settings.connect_timeout,
                                    settings.ping_timeout},
          std::move(events));
      deadline = loop.after(std::max(settings.connect_timeout - (loop.now() - started), Duration(0)), [this] {
        const auto held = shared_from_this();
        session->cut();
        closed({close_code::kAbnormal, "connect to " + to_string(settings.address) + ": no session in " +
                                           to_string(settings.connect_timeout)});
      });
      const std::string host = settings.trust ? settings.trust->server_name : to_string(settings.address);
      session->connect(host, settings.path, settings.headers);
    }

    void open() {
      const auto self = shared_from_this();
      deadline.reset();
      opened = true;
      if (handler.on_open) handler.on_open(session);
    }

    void closed(const WebSocketClose& close) {
      if (ended) return;
      const auto self = shared_from_this();
      ended = true;
      deadline.reset();
      if (handler.on_close) handler.on_close(close);
    }
  };

  std::shared_ptr<State> state_;
};

}  // namespace

std::unique_ptr<WebSocketClient> WebSocketClient::connect(AsioLoop& loop, WebSocketClientSettings settings,
                                                          WebSocketClientHandler handler) {
  return std::make_unique<Client>(loop, std::move(settings), std::move(handler));
}

}  // namespace pitcrew::net
