#include "lib/net/websocket_server.hpp"

#include <map>
#include <set>

#include <boost/asio/write.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/websocket/rfc6455.hpp>

#include "lib/net/http_wire.hpp"
#include "lib/net/listener.hpp"
#include "lib/net/websocket_session_impl.hpp"

namespace pitcrew::net {

Status WebSocketServerSettings::validate() const {
  const auto wrong = [](std::string_view what) {
    return Error(Code::kInvalidArgument, "WebSocket server: " + std::string(what));
  };
  if (max_connections == 0) return wrong("max_connections must be at least 1");
  if (max_message_bytes == 0 || max_queue_bytes == 0)
    return wrong("max_message_bytes and max_queue_bytes must be above 0");
  if (handshake_timeout <= Duration(0) || admission_timeout <= Duration(0) || ping_timeout <= Duration(0)) {
    return wrong("every time-out must be above 0");
  }
  if (identity) return check(*identity);
  return {};
}

namespace {

namespace http = boost::beast::http;
using internal::ErrorCode;
using internal::SessionImpl;

class Candidate;

struct Shared : std::enable_shared_from_this<Shared> {
  Shared(AsioLoop& l, WebSocketServerSettings s, WebSocketServerHandler h, Logger g)
      : loop(l),
        settings(std::move(s)),
        handler(std::make_shared<const WebSocketServerHandler>(std::move(h))),
        log(std::move(g)) {}
  AsioLoop& loop;
  WebSocketServerSettings settings;
  std::shared_ptr<const WebSocketServerHandler> handler;  // may be running while the server is destroyed
  Logger log;
  internal::SslContextPtr tls;
  std::set<std::shared_ptr<Candidate>> candidates;
  std::map<uint64_t, std::shared_ptr<SessionImpl>> sessions;  // opening and open
  size_t open = 0;
  bool ended = false;

  void upgrade(internal::Stream stream, SessionImpl::Upgrade request, const Address& peer,
               internal::ConnectionSlot slot, std::any context);
};

// A connection before its upgrade: its request is read, then judged by the handler.
class Candidate : public std::enable_shared_from_this<Candidate> {
 public:
  Candidate(std::shared_ptr<Shared> shared, internal::Stream stream, Address peer, internal::ConnectionSlot slot)
      : shared_(std::move(shared)), stream_(std::move(stream)), peer_(std::move(peer)), slot_(std::move(slot)) {}

  void begin() {
    shared_->candidates.insert(shared_from_this());
    parser_.header_limit(16 * 1024);
    deadline_ = shared_->loop.after(shared_->settings.handshake_timeout, [this] {
      shared_->log.debug("WebSocket request not complete in time", {{"peer", to_string(peer_)}});
      end();
    });
    http::async_read(stream_, buffer_, parser_, [self = shared_from_this()](const ErrorCode& error, size_t) {
      if (self->ended_) return;
      if (error == http::error::end_of_stream || error == internal::asio::error::operation_aborted) return self->end();
      if (error) return self->refuse(400, "this is no WebSocket request: " + error.message());
      self->judge();
    });
  }

  bool waiting() const { return waiting_ && !ended_; }

  void accept(std::any context) {
    waiting_ = false;
    const auto self = shared_from_this();
    internal::Stream stream = std::move(stream_);
    auto request = parser_.release();
    auto slot = std::move(slot_);
    forget();
    shared_->upgrade(std::move(stream), std::move(request), peer_, std::move(slot), std::move(context));
  }

  void refuse(int status, std::string_view reason) {
    waiting_ = false;
    const HttpResponse response = text_response(status, std::string(reason) + "\n");
    answer_ = internal::response_head(response, internal::BodyFraming::kLength, false) + response.body;
    deadline_ = shared_->loop.after(shared_->settings.handshake_timeout, [this] { end(); });
    internal::asio::async_write(
        stream_, internal::asio::buffer(answer_), [self = shared_from_this()](const ErrorCode& error, size_t) {
          if (error || self->ended_) return self->end();
          self->stream_.finish(internal::IoCallback([self](const ErrorCode&, size_t) { self->end(); }));
        });
  }

  void end() {
    if (ended_) return;
    const auto self = shared_from_this();
    stream_.close();
    forget();
  }

 private:
  void judge();

  void forget() {
    ended_ = true;
    deadline_.reset();
    slot_.reset();
    shared_->candidates.erase(shared_from_this());
  }

  std::shared_ptr<Shared> shared_;
  internal::Stream stream_;
  Address peer_;
  internal::ConnectionSlot slot_;
  boost::beast::flat_buffer buffer_;
  http::request_parser<http::empty_body> parser_;
  Loop::TimerPtr deadline_;
  std::string answer_;
  bool waiting_ = false;
  bool ended_ = false;
};

class Admission final : public WebSocketAdmission {
 public:
  explicit Admission(std::shared_ptr<Candidate> candidate) : candidate_(std::move(candidate)) {}
  ~Admission() override {
    if (candidate_->waiting()) candidate_->refuse(503, "the server gave no answer");
  }
  void accept(std::any context) override {
    if (candidate_->waiting()) candidate_->accept(std::move(context));
  }
  void refuse(int http_status, std::string_view reason) override {
    if (candidate_->waiting()) candidate_->refuse(http_status, reason);
  }

 private:
  std::shared_ptr<Candidate> candidate_;
};

void Candidate::judge() {
  if (!boost::beast::websocket::is_upgrade(parser_.get()))
    return refuse(426, "only WebSocket requests are answered here");
  if (buffer_.size() > 0) return refuse(400, "bytes came before the WebSocket was accepted");
  WebSocketRequest request{std::string(parser_.get().target()), {}, peer_};
  for (const auto& field : parser_.get()) {
    request.headers.emplace_back(std::string(field.name_string()), std::string(field.value()));
  }
  waiting_ = true;
  deadline_ = shared_->loop.after(shared_->settings.admission_timeout, [this] { refuse(503, "not admitted in time"); });
  auto admission = std::make_unique<Admission>(shared_from_this());
  const auto handler = shared_->handler;
  if (!handler->on_request) return admission->accept({});
  handler->on_request(request, std::move(admission));
}

void Shared::upgrade(internal::Stream stream, SessionImpl::Upgrade request, const Address& peer,
                     internal::ConnectionSlot slot, std::any context) {
  if (ended) return;
  const std::weak_ptr<Shared> weak = weak_from_this();
  // The session's functions know it by its number alone: it owns them.
  const auto number = std::make_shared<uint64_t>(0);
  const auto was_open = std::make_shared<bool>(false);
  const auto found = [weak, number]() -> std::pair<std::shared_ptr<Shared>, std::shared_ptr<SessionImpl>> {
    const auto shared = weak.lock();
    if (!shared || shared->ended) return {};
    const auto at = shared->sessions.find(*number);
    if (at == shared->sessions.end()) return {};
    return {shared, at->second};
  };
  SessionImpl::Events events;
  events.on_open = [found, was_open] {
    const auto [shared, session] = found();
    if (!session) return;
    *was_open = true;
    ++shared->open;
    const auto handler = shared->handler;
    if (handler->on_open) handler->on_open(session);
  };
  events.on_message = [found](std::string text) {
    const auto [shared, session] = found();
    if (!session) return;
    const auto handler = shared->handler;
    if (handler->on_message) handler->on_message(session, std::move(text));
  };
  events.on_close = [found, was_open](const WebSocketClose& close) {
    const auto [shared, session] = found();
    if (!session) return;
    shared->sessions.erase(session->id());
    if (!*was_open) return;
    --shared->open;
    const auto handler = shared->handler;
    if (handler->on_close) handler->on_close(session, close);
  };
  const internal::SessionSettings limits{settings.max_message_bytes, settings.max_queue_bytes,
                                         settings.handshake_timeout, settings.ping_timeout};
  const auto session = std::make_shared<SessionImpl>(loop, std::move(stream), peer, limits, std::move(events));
  *number = session->id();
  session->keep(std::move(context));
  session->keep_slot(std::move(slot));
  sessions.emplace(session->id(), session);
  session->accept(std::move(request));
}

class Server final : public WebSocketServer {
 public:
  explicit Server(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}
  ~Server() override {
    listener_.reset();
    shared_->ended = true;
    while (!shared_->candidates.empty()) (*shared_->candidates.begin())->end();
    for (auto& [id, session] : shared_->sessions) session->cut();
    shared_->sessions.clear();
    shared_->handler.reset();
  }

  Status start() {
    const WebSocketServerSettings& settings = shared_->settings;
    internal::ListenerSettings listen{settings.address, settings.max_connections, settings.handshake_timeout};
    if (settings.identity) {
      PITCREW_TRY(set_identity(*settings.identity));
      listen.make_tls = [shared = shared_] { return internal::server_tls(shared->tls); };
    }
    internal::ListenerHandler handler;
    handler.on_stream = [shared = shared_](internal::Stream stream, Address peer, internal::ConnectionSlot slot) {
      std::make_shared<Candidate>(shared, std::move(stream), std::move(peer), std::move(slot))->begin();
    };
    handler.on_handshake_failed = [shared = shared_](const Error& error) { shared->log.debug(error.message); };
    PITCREW_ASSIGN(listener_, internal::Listener::open(shared_->loop, std::move(listen), std::move(handler)));
    return {};
  }

  Address address() const override { return listener_->address(); }
  size_t sessions() const override { return shared_->open; }
  uint64_t refused_connections() const override { return listener_->refused(); }
  Status set_identity(const TlsServerIdentity& identity) override {
    PITCREW_ASSIGN(shared_->tls, internal::server_context(identity));
    return {};
  }
  void close_all(uint16_t code, std::string_view reason) override {
    const auto sessions = shared_->sessions;
    for (const auto& [id, session] : sessions) session->close(code, reason);
  }

 private:
  std::shared_ptr<Shared> shared_;
  std::unique_ptr<internal::Listener> listener_;
};

}  // namespace

Result<std::unique_ptr<WebSocketServer>> WebSocketServer::listen(AsioLoop& loop, WebSocketServerSettings settings,
                                                                 WebSocketServerHandler handler, Logger log) {
  PITCREW_TRY(settings.validate());
  auto server =
      std::make_unique<Server>(std::make_shared<Shared>(loop, std::move(settings), std::move(handler), std::move(log)));
  PITCREW_TRY(server->start());
  return std::unique_ptr<WebSocketServer>(std::move(server));
}

}  // namespace pitcrew::net
