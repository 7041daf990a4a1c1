#include "lib/net/listener.hpp"

#include <set>

#include <boost/asio/ip/v6_only.hpp>
#include <netinet/tcp.h>

namespace pitcrew::net::internal {

namespace {

using Acceptor = asio::basic_socket_acceptor<tcp, Executor>;

struct Handshake {
  Stream stream;
  Address peer;
  ConnectionSlot slot;
  Loop::TimerPtr deadline;
  bool timed_out = false;
};

Status bind_to(Acceptor& acceptor, tcp::endpoint endpoint, bool every_interface) {
  const std::string what = "listen on " + to_string(address_of(endpoint));
  ErrorCode error;
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error && every_interface && endpoint.address().is_v6()) acceptor.set_option(asio::ip::v6_only(false), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (!error) acceptor.non_blocking(true, error);
  if (!error) return {};
  ErrorCode ignored;
  acceptor.close(ignored);
  return io_error(what, error);
}

}  // namespace

struct Listener::State : std::enable_shared_from_this<State> {
  State(AsioLoop& l, ListenerSettings s, ListenerHandler h)
      : loop(l), settings(std::move(s)), handler(std::move(h)), acceptor(context_of(l)), next(context_of(l)) {}

  AsioLoop& loop;
  ListenerSettings settings;
  ListenerHandler handler;
  Acceptor acceptor;
  Socket next;
  std::shared_ptr<size_t> in_use = std::make_shared<size_t>(0);
  uint64_t refused = 0;
  std::set<std::shared_ptr<Handshake>> handshakes;
  Loop::TimerPtr pause;
  bool ended = false;

  void accept() {
    acceptor.async_accept(next, [self = shared_from_this()](const ErrorCode& error) {
      if (self->ended) return;
      if (!error) {
        self->take(std::exchange(self->next, Socket(context_of(self->loop))));
      } else if (error != asio::error::connection_aborted) {
        // Out of descriptors, mostly: try again when others may have closed.
        self->pause = self->loop.after(milliseconds(100), [self = self.get()] { self->accept(); });
        return;
      }
      self->accept();
    });
  }

  void take(Socket socket) {
    if (*in_use >= settings.max_connections) {
      ++refused;
      return;  // the socket closes
    }
    ErrorCode error;
    const tcp::endpoint peer = socket.remote_endpoint(error);
    if (error) return;  // gone already
    ++*in_use;
    ConnectionSlot slot(nullptr, [count = in_use](void*) { --*count; });
    set_socket_options(socket);
    TlsState tls;
    if (settings.make_tls) {
      auto made = settings.make_tls();
      if (!made) return failed(made.error());
      tls = *std::move(made);
    }
    auto shake = std::make_shared<Handshake>(
        Handshake{Stream(std::move(socket), std::move(tls)), address_of(peer), std::move(slot), nullptr, false});
    handshakes.insert(shake);
    shake->deadline = loop.after(settings.handshake_timeout, [shake = shake.get()] {
      shake->timed_out = true;
      shake->stream.close();
    });
    shake->stream.handshake(IoCallback(
        [self = shared_from_this(), shake](const ErrorCode& failure, size_t) { self->done(shake, failure); }));
  }

  void done(const std::shared_ptr<Handshake>& shake, const ErrorCode& error) {
    if (ended) return;
    handshakes.erase(shake);
    shake->deadline.reset();
    const std::string what = "TLS handshake with " + to_string(shake->peer);
    if (shake->timed_out) {
      return failed(Error(Code::kDeadlineExceeded, what + ": not done in " + to_string(settings.handshake_timeout)));
    }
    if (error) return failed(shake->stream.to_error(what, error));
    handler.on_stream(std::move(shake->stream), std::move(shake->peer), std::move(shake->slot));
  }

  void failed(const Error& error) {
    if (handler.on_handshake_failed) handler.on_handshake_failed(error);
  }
};

Result<std::unique_ptr<Listener>> Listener::open(AsioLoop& loop, ListenerSettings settings, ListenerHandler handler) {
  PITCREW_ASSIGN(tcp::endpoint endpoint, endpoint_of(settings.address));
  const bool every_interface = settings.address.host.empty() || settings.address.host == "::";
  auto state = std::make_shared<State>(loop, std::move(settings), std::move(handler));
  Status bound = bind_to(state->acceptor, endpoint, every_interface);
  if (!bound && every_interface) {
    // A kernel without IPv6.
    bound = bind_to(state->acceptor, tcp::endpoint(tcp::v4(), endpoint.port()), true);
  }
  if (!bound) return bound.error();
  state->accept();
  return std::unique_ptr<Listener>(new Listener(std::move(state)));
}

Listener::~Listener() {
  state_->ended = true;
  state_->pause.reset();
  ErrorCode ignored;
  state_->acceptor.close(ignored);
  for (const auto& shake : state_->handshakes) {
    shake->deadline.reset();
    shake->stream.close();
  }
  state_->handshakes.clear();
  // One of them may be running: a server may be destroyed by its own handler.
  state_->loop.post([handler = std::make_shared<ListenerHandler>(std::move(state_->handler))] {});
  state_->handler = {};
}

Address Listener::address() const {
  ErrorCode ignored;
  return address_of(state_->acceptor.local_endpoint(ignored));
}

size_t Listener::connections() const { return *state_->in_use; }
uint64_t Listener::refused() const { return state_->refused; }

void set_socket_options(Socket& socket) {
  ErrorCode ignored;
  socket.set_option(tcp::no_delay(true), ignored);
  socket.set_option(asio::socket_base::keep_alive(true), ignored);
  using Idle = asio::detail::socket_option::integer<IPPROTO_TCP, TCP_KEEPIDLE>;
  using Interval = asio::detail::socket_option::integer<IPPROTO_TCP, TCP_KEEPINTVL>;
  using Unanswered = asio::detail::socket_option::integer<IPPROTO_TCP, TCP_USER_TIMEOUT>;
  socket.set_option(Idle(15), ignored);
  socket.set_option(Interval(5), ignored);
  socket.set_option(Unanswered(30'000), ignored);
}

}  // namespace pitcrew::net::internal
