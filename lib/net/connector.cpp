#include "lib/net/connector.hpp"

#include <optional>

#include "lib/net/listener.hpp"

namespace pitcrew::net::internal {

struct Connector::State : std::enable_shared_from_this<State> {
  State(AsioLoop& l, const Address& a, Duration t, Done d)
      : loop(l), what("connect to " + to_string(a)), timeout(t), done(std::move(d)), socket(context_of(l)) {}

  AsioLoop& loop;
  std::string what;
  Duration timeout;
  Done done;
  Socket socket;
  std::optional<TlsState> tls;
  std::optional<Stream> stream;
  Loop::TimerPtr deadline;
  bool timed_out = false;
  bool ended = false;

  void begin(const Address& address, Result<TlsState> made) {
    auto endpoint = endpoint_of(address);
    std::optional<Error> wrong;
    if (!endpoint) wrong = endpoint.error();
    if (!made) wrong = made.error();
    if (wrong) {
      loop.post([self = shared_from_this(), error = wrong->with_context(what)] { self->finish(error); });
      return;
    }
    tls = *std::move(made);
    deadline = loop.after(timeout, [this] {
      timed_out = true;
      cut();
    });
    socket.async_connect(*endpoint, [self = shared_from_this()](const ErrorCode& error) { self->connected(error); });
  }

  void connected(const ErrorCode& error) {
    if (ended) return;
    if (timed_out) return finish(too_late());
    if (error) return finish(io_error(what, error));
    set_socket_options(socket);
    stream.emplace(std::move(socket), *std::move(tls));
    stream->handshake(
        IoCallback([self = shared_from_this()](const ErrorCode& failure, size_t) { self->shaken(failure); }));
  }

  void shaken(const ErrorCode& error) {
    if (ended) return;
    if (timed_out) return finish(too_late());
    if (error) return finish(stream->to_error(what, error));
    Stream ready = *std::move(stream);
    stream.reset();
    finish(std::move(ready));
  }

  Error too_late() const { return Error(Code::kDeadlineExceeded, what + ": no answer in " + to_string(timeout)); }

  void finish(Result<Stream> result) {
    if (ended) return;
    ended = true;
    deadline.reset();
    const Done call = std::move(done);
    cut();
    call(std::move(result));
  }

  void cut() {
    ErrorCode ignored;
    socket.close(ignored);
    if (stream) stream->close();
  }
};

Connector::Connector(AsioLoop& loop, const Address& address, Result<TlsState> tls, Duration timeout, Done done)
    : state_(std::make_shared<State>(loop, address, timeout, std::move(done))) {
  state_->begin(address, std::move(tls));
}

Connector::~Connector() {
  state_->ended = true;
  state_->deadline.reset();
  state_->done = nullptr;
  state_->cut();
}

}  // namespace pitcrew::net::internal
