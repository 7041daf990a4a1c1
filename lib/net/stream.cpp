#include "lib/net/stream.hpp"

#include <cstring>
#include <utility>

#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>
#include <openssl/err.h>
#include <openssl/x509.h>

#include "lib/net/socket_bio.hpp"

namespace pitcrew::net::internal {

namespace {

const ErrorCode kTlsRefused = make_error_code(boost::system::errc::permission_denied);
const ErrorCode kTruncated = asio::error::connection_reset;

}  // namespace

struct Stream::Core : std::enable_shared_from_this<Core> {
  Core(Socket s, TlsState t) : socket(std::move(s)), tls(std::move(t)) {}

  enum class Want { kDone, kRead, kWrite };
  // What one attempt came to: done (with `error` and `size`), or what to wait for.
  struct Attempt {
    Want want = Want::kDone;
    ErrorCode error = {};
    size_t size = 0;
  };
  using Try = Attempt (Core::*)();

  struct Operation {
    IoCallback done;
    Try attempt = nullptr;
  };

  Socket socket;
  TlsState tls;
  Operation reading;  // also the handshake and the end
  Operation writing;
  std::span<char> target;
  std::array<asio::const_buffer, kMaxBuffers> sources;
  size_t source_count = 0;
  bool handshaken = false;
  bool tls_failed = false;
  std::string failure;

  void begin(Operation& operation, Try attempt, IoCallback done) {
    PITCREW_INVARIANT(!operation.done, "two operations of one kind on a stream");
    operation.done = std::move(done);
    operation.attempt = attempt;
    step(operation, false);
  }

  void step(Operation& operation, bool from_loop) {
    if (!socket.is_open()) return complete(operation, asio::error::operation_aborted, 0, from_loop);
    const Attempt attempt = (this->*operation.attempt)();
    if (attempt.want == Want::kDone) return complete(operation, attempt.error, attempt.size, from_loop);
    const auto type = attempt.want == Want::kRead ? tcp::socket::wait_read : tcp::socket::wait_write;
    socket.async_wait(type, [self = shared_from_this(), &operation](const ErrorCode& error) {
      if (!operation.done) return;  // close() has completed it
      if (error) return self->complete(operation, error, 0, true);
      self->step(operation, true);
    });
  }

  void complete(Operation& operation, const ErrorCode& error, size_t size, bool from_loop) {
    IoCallback done = std::move(operation.done);
    if (from_loop) return done(error, size);
    asio::post(socket.get_executor(), [done = std::move(done), error, size]() mutable { done(error, size); });
  }

  Attempt tls_result(int returned, size_t size) {
    if (returned > 0) return {Want::kDone, {}, size};
    const int system_error = errno;
    switch (SSL_get_error(tls.ssl.get(), returned)) {
      case SSL_ERROR_WANT_READ:
        return {Want::kRead};
      case SSL_ERROR_WANT_WRITE:
        return {Want::kWrite};
      case SSL_ERROR_ZERO_RETURN:
        return {Want::kDone, asio::error::eof};
      case SSL_ERROR_SYSCALL:
        tls_failed = true;
        if (ERR_peek_error() != 0 || system_error == 0) return {Want::kDone, kTruncated};
        return {Want::kDone, ErrorCode(system_error, boost::system::system_category())};
      default:
        break;
    }
    tls_failed = true;
    if (ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
      ERR_clear_error();
      return {Want::kDone, kTruncated};
    }
    failure = take_ssl_errors();
    const long verified = SSL_get_verify_result(tls.ssl.get());
    if (verified != X509_V_OK) failure = "certificate refused: " + std::string(X509_verify_cert_error_string(verified));
    return {Want::kDone, kTlsRefused};
  }

  Attempt try_handshake() {
    if (!tls.ssl) return {};
    ERR_clear_error();
    errno = 0;
    const int returned = SSL_do_handshake(tls.ssl.get());
    handshaken = returned == 1;
    return tls_result(returned, 0);
  }

  Attempt try_read() {
    if (target.empty()) return {};
    if (tls.ssl) {
      size_t size = 0;
      ERR_clear_error();
      errno = 0;
      const int returned = SSL_read_ex(tls.ssl.get(), target.data(), target.size(), &size);
      return tls_result(returned, size);
    }
    ErrorCode error;
    const size_t size = socket.read_some(asio::buffer(target.data(), target.size()), error);
    if (error == asio::error::would_block) return {Want::kRead};
    return {Want::kDone, error, size};
  }

  Attempt try_write() {
    if (source_count == 0) return {};
    if (tls.ssl) {
      // Small pieces (a frame's header and its body) share one record. A repeated attempt sees the same bytes.
      std::array<char, 4096> joined;
      asio::const_buffer source = sources[0];
      if (source_count > 1 && source.size() < joined.size()) {
        size_t size = 0;
        for (size_t i = 0; i < source_count && size < joined.size(); ++i) {
          const size_t part = std::min(sources[i].size(), joined.size() - size);
          std::memcpy(joined.data() + size, sources[i].data(), part);
          size += part;
        }
        source = asio::const_buffer(joined.data(), size);
      }
      size_t size = 0;
      ERR_clear_error();
      errno = 0;
      const int returned = SSL_write_ex(tls.ssl.get(), source.data(), source.size(), &size);
      return tls_result(returned, size);
    }
    ErrorCode error;
    const size_t size = socket.write_some(std::span<const asio::const_buffer>(sources.data(), source_count), error);
    if (error == asio::error::would_block) return {Want::kWrite};
    return {Want::kDone, error, size};
  }

  Attempt try_drain() {
    std::array<char, 4096> dropped;
    ErrorCode error;
    // A peer that sends for ever doesn't hold the loop: between two rounds others run.
    for (int round = 0; round < 16 && !error; ++round) socket.read_some(asio::buffer(dropped), error);
    if (!error || error == asio::error::would_block) return {Want::kRead};
    return {};
  }
};

Stream::Stream(Socket socket, TlsState tls) : core_(std::make_shared<Core>(std::move(socket), std::move(tls))) {
  ErrorCode ignored;
  core_->socket.non_blocking(true, ignored);
  if (core_->tls.ssl) {
    BIO* bio = make_socket_bio(core_->socket.native_handle());
    SSL_set_bio(core_->tls.ssl.get(), bio, bio);
  }
}

Stream& Stream::operator=(Stream&& other) noexcept {
  if (this != &other) {
    if (core_) close();
    core_ = std::move(other.core_);
  }
  return *this;
}

Stream::~Stream() {
  if (core_) close();
}

Executor Stream::get_executor() const { return core_->socket.get_executor(); }

void Stream::handshake(IoCallback done) { core_->begin(core_->reading, &Core::try_handshake, std::move(done)); }

void Stream::read(std::span<char> target, IoCallback done) {
  core_->target = target;
  core_->begin(core_->reading, &Core::try_read, std::move(done));
}

void Stream::write(std::span<const asio::const_buffer> sources, IoCallback done) {
  core_->source_count = sources.size();
  std::copy(sources.begin(), sources.end(), core_->sources.begin());
  core_->begin(core_->writing, &Core::try_write, std::move(done));
}

void Stream::finish(IoCallback done) {
  say_end();
  core_->begin(core_->reading, &Core::try_drain, std::move(done));
}

void Stream::say_end() {
  Core& core = *core_;
  if (core.tls.ssl && core.handshaken && !core.tls_failed && !core.writing.done) {
    ERR_clear_error();
    SSL_shutdown(core.tls.ssl.get());
  }
  ErrorCode ignored;
  core.socket.shutdown(tcp::socket::shutdown_send, ignored);
}

void Stream::close() {
  ErrorCode ignored;
  core_->socket.close(ignored);
  // The functions leave with the loop's queue, not with the waits that are aborted: they hold the stream's owner, and a
  // loop that ends before those waits return would leave owner and stream holding one another.
  for (Core::Operation* operation : {&core_->reading, &core_->writing}) {
    if (operation->done) core_->complete(*operation, asio::error::operation_aborted, 0, false);
  }
}

bool Stream::is_open() const { return core_->socket.is_open(); }

std::string Stream::describe(const ErrorCode& error) const {
  if (error == kTlsRefused && !core_->failure.empty()) return "TLS: " + core_->failure;
  if (error == asio::error::eof) return "closed by the peer";
  if (error == kTruncated) return "cut by the peer or the network";
  return error.message();
}

Error Stream::to_error(std::string_view what, const ErrorCode& error) const {
  const bool refused = error == kTlsRefused;
  return Error(refused ? Code::kUnauthenticated : Code::kUnavailable, std::string(what) + ": " + describe(error));
}

SSL* Stream::ssl() const { return core_->tls.ssl.get(); }
const std::shared_ptr<void>& Stream::tls_data() const { return core_->tls.data; }

}  // namespace pitcrew::net::internal
