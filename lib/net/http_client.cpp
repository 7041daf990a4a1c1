#include "lib/net/http_client.hpp"

#include <limits>
#include <optional>

#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

#include "lib/net/connector.hpp"
#include "lib/net/http_wire.hpp"

namespace pitcrew::net {

namespace {

namespace http = boost::beast::http;
using internal::ErrorCode;

struct Exchange : std::enable_shared_from_this<Exchange> {
  Exchange(AsioLoop& l, HttpClientSettings s, HttpRequest r, HttpExchangeHandler h)
      : loop(l), settings(std::move(s)), handler(std::move(h)) {
    what = r.method + " " + r.target + " at " + to_string(settings.address);
    std::string host = settings.host.empty() ? to_string(settings.address) : settings.host;
    written = internal::request_head(r, host) + r.body;
    parser.eager(true);
    // Chunks of a long stream count against the limit too (Beast 1.74); boost::none is broken there.
    parser.body_limit(handler.on_piece ? std::numeric_limits<uint64_t>::max() : settings.max_body_bytes);
    parser.skip(r.method == "HEAD");
  }

  AsioLoop& loop;
  HttpClientSettings settings;
  HttpExchangeHandler handler;
  std::string what;
  std::string written;
  std::unique_ptr<internal::Connector> connector;
  std::optional<internal::Stream> stream;
  http::response_parser<http::string_body> parser;
  boost::beast::flat_buffer buffer;
  Loop::TimerPtr deadline;
  bool ended = false;

  void begin() {
    internal::Connector::Done done = [this](Result<internal::Stream> connected) {
      begin_exchange(std::move(connected));
    };
    auto tls =
        settings.trust ? internal::client_tls(*settings.trust) : Result<internal::TlsState>(internal::TlsState{});
    connector = std::make_unique<internal::Connector>(loop, settings.address, std::move(tls), settings.connect_timeout,
                                                      std::move(done));
  }

  void begin_exchange(Result<internal::Stream> connected) {
    const auto self = shared_from_this();
    if (!connected) return finish(connected.error().with_context(what));
    stream.emplace(*std::move(connected));
    extend();
    internal::asio::async_write(*stream, internal::asio::buffer(written), [self](const ErrorCode& error, size_t) {
      // A server that refuses early may have closed its side; its answer is still to be read.
      if (error == internal::asio::error::operation_aborted) return;
      self->written.clear();
    });
    read();
  }

  void extend() {
    deadline = loop.after(settings.timeout, [this] {
      finish(Error(Code::kDeadlineExceeded, what + ": no answer in " + to_string(settings.timeout)));
    });
  }

  void read() {
    const auto space = buffer.prepare(8192);
    stream->read({static_cast<char*>(space.data()), space.size()},
                 internal::IoCallback([self = shared_from_this()](const ErrorCode& error, size_t size) {
                   if (!self->ended) self->have_read(error, size);
                 }));
  }

  void have_read(ErrorCode error, size_t size) {
    const auto self = shared_from_this();
    buffer.commit(size);
    if (error) {
      const ErrorCode why = error;
      error = {};
      if (parser.got_some()) parser.put_eof(error);
      if (error || !parser.is_done() || why != internal::asio::error::eof) return finish(stream->to_error(what, why));
      return succeed();
    }
    while (buffer.size() > 0 && !parser.is_done()) {
      buffer.consume(parser.put(buffer.data(), error));
      if (error == http::error::need_more) break;
      if (error) return finish(Error(Code::kResourceExhausted, what + ": " + error.message()));
    }
    if (handler.on_piece) {
      extend();
      const bool wanted = parser.is_header_done() && !parser.get().body().empty();
      if (wanted) {
        const std::string piece = std::exchange(parser.get().body(), {});
        const auto on_piece = handler.on_piece;
        on_piece(piece);
        if (ended) return;
      }
    }
    if (parser.is_done()) return succeed();
    read();
  }

  void succeed() {
    HttpResponse response;
    auto message = parser.release();
    response.status = static_cast<int>(message.result_int());
    for (const auto& field : message)
      response.headers.emplace_back(std::string(field.name_string()), std::string(field.value()));
    response.body = std::move(message.body());
    finish(std::move(response));
  }

  void finish(Result<HttpResponse> result) {
    if (ended) return;
    const auto self = shared_from_this();
    const auto on_done = std::move(handler.on_done);
    end();
    if (on_done) on_done(std::move(result));
  }

  void end() {
    ended = true;
    deadline.reset();
    connector.reset();
    if (stream) stream->close();
  }
};

class Held final : public HttpExchange {
 public:
  explicit Held(std::shared_ptr<Exchange> exchange) : exchange_(std::move(exchange)) {}
  ~Held() override {
    if (!exchange_->ended) exchange_->end();
  }

 private:
  std::shared_ptr<Exchange> exchange_;
};

}  // namespace

HttpExchangePtr http_request(AsioLoop& loop, HttpClientSettings settings, HttpRequest request,
                             HttpExchangeHandler handler) {
  auto exchange = std::make_shared<Exchange>(loop, std::move(settings), std::move(request), std::move(handler));
  exchange->begin();
  return std::make_unique<Held>(std::move(exchange));
}

}  // namespace pitcrew::net
