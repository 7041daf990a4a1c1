#pragma once

// Internal to lib/net.

#include <array>
#include <memory>
#include <span>
#include <string>

#include <boost/asio/async_result.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/beast/core/role.hpp>

#include "lib/net/io.hpp"
#include "lib/net/tls_context.hpp"

namespace pitcrew::net::internal {

// A completion function that can only be moved; Asio's and Beast's handlers are such.
class IoCallback {
 public:
  IoCallback() = default;
  template <typename F>
    requires(!std::is_same_v<std::decay_t<F>, IoCallback>)
  explicit IoCallback(F&& f) : held_(std::make_unique<Held<std::decay_t<F>>>(std::forward<F>(f))) {}

  explicit operator bool() const { return held_ != nullptr; }
  // Callable once.
  void operator()(const ErrorCode& error, size_t size) {
    const auto held = std::move(held_);
    held->call(error, size);
  }

 private:
  struct Base {
    virtual ~Base() = default;
    virtual void call(const ErrorCode& error, size_t size) = 0;
  };
  template <typename F>
  struct Held final : Base {
    explicit Held(F&& f) : function(std::move(f)) {}
    explicit Held(const F& f) : function(f) {}
    void call(const ErrorCode& error, size_t size) override { std::move(function)(error, size); }
    F function;
  };
  std::unique_ptr<Base> held_;
};

// A TCP connection with or without TLS, as Asio's composed operations and Beast want a stream to be. In place of
// asio::ssl::stream, which keeps about 70 KiB of buffers per connection (two records, a BIO pair); here OpenSSL reads
// from and writes to the socket itself, and an idle connection holds no buffer: 10,000 control channels must fit at 20
// kB each.
//
// At most one read and one write are under way. Completions come from the loop, never from inside the call. close()
// completes what is under way with operation_aborted. Movable; destroying it closes the socket.
class Stream {
 public:
  using executor_type = Executor;
  static constexpr size_t kMaxBuffers = 8;

  explicit Stream(Socket socket, TlsState tls = {});
  Stream(Stream&&) noexcept = default;
  Stream& operator=(Stream&& other) noexcept;
  ~Stream();

  executor_type get_executor() const;

  template <typename Buffers, typename Token>
  auto async_read_some(const Buffers& buffers, Token&& token) {
    std::span<char> target;
    for (auto at = asio::buffer_sequence_begin(buffers); at != asio::buffer_sequence_end(buffers) && target.empty();
         ++at) {
      const asio::mutable_buffer buffer(*at);
      target = {static_cast<char*>(buffer.data()), buffer.size()};
    }
    return asio::async_initiate<Token, void(ErrorCode, size_t)>(
        [](auto&& handler, Stream* self, std::span<char> into) {
          self->read(into, IoCallback(std::forward<decltype(handler)>(handler)));
        },
        token, this, target);
  }

  template <typename Buffers, typename Token>
  auto async_write_some(const Buffers& buffers, Token&& token) {
    std::array<asio::const_buffer, kMaxBuffers> sources;
    size_t count = 0;
    for (auto at = asio::buffer_sequence_begin(buffers);
         at != asio::buffer_sequence_end(buffers) && count < kMaxBuffers; ++at) {
      const asio::const_buffer buffer(*at);
      if (buffer.size() > 0) sources[count++] = buffer;
    }
    return asio::async_initiate<Token, void(ErrorCode, size_t)>(
        [](auto&& handler, Stream* self, const std::array<asio::const_buffer, kMaxBuffers>& from, size_t n) {
          self->write({from.data(), n}, IoCallback(std::forward<decltype(handler)>(handler)));
        },
        token, this, sources, count);
  }

  // Completes with 0 bytes; without TLS at once.
  void handshake(IoCallback done);
  void read(std::span<char> target, IoCallback done);
  void write(std::span<const asio::const_buffer> sources, IoCallback done);

  // Says to the peer that nothing more comes (TLS close_notify, FIN), then takes and drops what it still sends until it
  // has closed too: closing a socket with unread bytes would reset the connection and destroy what was just sent. The
  // caller bounds the time.
  void finish(IoCallback done);
  // The first half of finish(), for one who has a read under way.
  void say_end();
  void close();
  bool is_open() const;

  // An error of this stream in words: why TLS failed where it did, e.g. which certificate was refused.
  std::string describe(const ErrorCode& error) const;
  // That, with the code that fits; kUnauthenticated where TLS was refused.
  Error to_error(std::string_view what, const ErrorCode& error) const;
  SSL* ssl() const;
  const std::shared_ptr<void>& tls_data() const;

  friend void beast_close_socket(Stream& stream) { stream.close(); }
  template <typename Handler>
  friend void async_teardown(boost::beast::role_type, Stream& stream, Handler&& handler) {
    stream.finish(IoCallback(
        [held = std::forward<Handler>(handler)](const ErrorCode& error, size_t) mutable { std::move(held)(error); }));
  }

 private:
  struct Core;
  std::shared_ptr<Core> core_;
};

}  // namespace pitcrew::net::internal
