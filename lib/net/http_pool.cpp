#include "lib/net/http_pool.hpp"

#include <algorithm>
#include <deque>
#include <limits>
#include <optional>
#include <set>

#include <boost/asio/write.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

#include "lib/net/connector.hpp"
#include "lib/net/http_wire.hpp"
#include "lib/net/resolver.hpp"

namespace pitcrew::net {

namespace {

namespace http = boost::beast::http;
using internal::ErrorCode;
using Parser = http::response_parser<http::string_body>;

// Two TLS records: what one read takes at most.
constexpr size_t kReadBytes = 32 * 1024;

}  // namespace

class HttpPool::Impl : public std::enable_shared_from_this<Impl> {
 public:
  struct Connection;

  // One call, from send() to its end.
  struct Exchange : HttpPoolCall, std::enable_shared_from_this<Exchange> {
    Exchange(HttpPoolCall c, HttpPoolHandler h) : HttpPoolCall(std::move(c)), handler(std::move(h)) {}
    HttpPoolHandler handler;
    std::string what;
    std::string written;  // the request's bytes
    std::unique_ptr<Lookup> lookup;
    std::unique_ptr<internal::Connector> connector;
    std::vector<Address> addresses;  // not tried yet, last first
    Instant connect_until;
    std::shared_ptr<Connection> connection;
    Loop::TimerPtr deadline;
    Loop::TimerPtr silence;
    bool counted = false;  // among the busy
    bool again = false;    // this is the second try
    bool ended = false;
  };
  using ExchangePtr = std::shared_ptr<Exchange>;

  // A connection, kept or busy with one exchange. One read is always under way, so that an end is noticed in either.
  struct Connection : std::enable_shared_from_this<Connection> {
    Connection(std::weak_ptr<Impl> p, internal::Stream s) : pool(std::move(p)), stream(std::move(s)) {}
    std::weak_ptr<Impl> pool;
    internal::Stream stream;
    std::vector<char> buffer = std::vector<char>(kReadBytes);
    size_t filled = 0;
    std::optional<Parser> parser;
    ExchangePtr exchange;
    bool writing = false;
    bool head_told = false;
    bool used = false;   // has served an exchange before
    bool stale = false;  // not to be kept
    bool closed = false;
    Loop::TimerPtr idle;

    void read() {
      stream.read({buffer.data() + filled, buffer.size() - filled},
                  internal::IoCallback([self = shared_from_this()](const ErrorCode& error, size_t size) {
                    if (self->closed) return;
                    const auto impl = self->pool.lock();
                    if (impl) impl->have_read(self, error, size);
                  }));
    }
    void close() {
      closed = true;
      idle.reset();
      stream.close();
    }
  };
  using ConnectionPtr = std::shared_ptr<Connection>;

  class Held final : public HttpExchange {
   public:
    Held(std::weak_ptr<Impl> pool, ExchangePtr exchange) : pool_(std::move(pool)), exchange_(std::move(exchange)) {}
    ~Held() override {
      if (exchange_->ended) return;
      if (const auto pool = pool_.lock()) pool->leave(exchange_, false);
    }

   private:
    std::weak_ptr<Impl> pool_;
    ExchangePtr exchange_;
  };

  Impl(AsioLoop& l, HttpPoolSettings s) : loop(l), settings(std::move(s)) {}

  void close_all() {
    for (const auto& exchange : std::exchange(exchanges, {})) release(*exchange);
    for (const auto& connection : std::exchange(connections, {})) connection->close();
    kept.clear();
    line.clear();
  }

  HttpExchangePtr send(HttpPoolCall call, HttpPoolHandler handler) {
    auto exchange = std::make_shared<Exchange>(std::move(call), std::move(handler));
    const Address shown{settings.host, settings.port};
    exchange->what = exchange->request.method + " " + std::string(exchange->request.path()) + " at " + to_string(shown);
    exchange->written = internal::request_head(exchange->request, to_string(shown), true) + exchange->request.body;
    exchange->request.body = {};
    exchanges.insert(exchange);
    exchange->deadline = loop.after(exchange->timeout, [this, e = exchange.get()] {
      fail(e->shared_from_this(), Error(Code::kDeadlineExceeded, e->what + ": no answer in " + to_string(e->timeout)));
    });
    if (!exchange->long_lived && busy >= settings.max_busy) {
      ++metrics.waited;
      line.push_back(exchange);
    } else {
      begin(exchange);
    }
    return std::make_unique<Held>(weak_from_this(), std::move(exchange));
  }

  void begin(const ExchangePtr& exchange) {
    if (!exchange->long_lived && !exchange->counted) {
      exchange->counted = true;
      ++busy;
    }
    if (!kept.empty() && !exchange->again) {
      const ConnectionPtr connection = kept.back();  // the warmest
      kept.pop_back();
      connection->idle.reset();
      ++metrics.reused;
      return use(connection, exchange);
    }
    exchange->connect_until = loop.now() + settings.connect_timeout;
    exchange->lookup =
        look_up(loop, settings.host, settings.port, [this, exchange](Result<std::vector<Address>> addresses) {
          const auto lookup = std::move(exchange->lookup);
          if (!addresses) return fail(exchange, addresses.error().with_context(exchange->what));
          std::reverse(addresses->begin(), addresses->end());
          exchange->addresses = *std::move(addresses);
          connect(exchange);
        });
  }

  void connect(const ExchangePtr& exchange) {
    const auto left = static_cast<int64_t>(exchange->addresses.size());
    const Address address = exchange->addresses.back();
    exchange->addresses.pop_back();
    Result<internal::TlsState> tls = internal::TlsState{};
    if (settings.tls) {
      auto client = settings.tls();
      if (client) {
        tls = internal::client_tls(**client);
      } else {
        tls = client.error();
      }
    }
    const Duration limit = std::max<Duration>((exchange->connect_until - loop.now()) / left, milliseconds(1));
    exchange->connector = std::make_unique<internal::Connector>(
        loop, address, std::move(tls), limit, [this, exchange](Result<internal::Stream> stream) {
          const auto connector = std::move(exchange->connector);
          if (!stream && !exchange->addresses.empty()) return connect(exchange);
          if (!stream) return fail(exchange, stream.error().with_context(exchange->what));
          ++metrics.opened;
          auto connection = std::make_shared<Connection>(weak_from_this(), *std::move(stream));
          connections.insert(connection);
          use(connection, exchange);
          connection->read();
        });
  }

  // Puts an exchange on a connection: from here on what is read belongs to it.
  void use(const ConnectionPtr& connection, const ExchangePtr& exchange) {
    exchange->connection = connection;
    connection->exchange = exchange;
    connection->head_told = false;
    Parser& parser = connection->parser.emplace();
    parser.eager(true);
    // Chunks of a long stream count against the limit too (Beast 1.74), and boost::none is broken there; the handler
    // bounds what it keeps.
    parser.body_limit(std::numeric_limits<uint64_t>::max());
    parser.header_limit(static_cast<uint32_t>(settings.max_head_bytes));
    parser.skip(exchange->request.method == "HEAD");
    connection->writing = true;
    internal::asio::async_write(connection->stream, internal::asio::buffer(exchange->written),
                                [connection, exchange](const ErrorCode&, size_t) {
                                  // A server that refuses early may have closed its side; its answer is still to be
                                  // read, and a broken connection is told by the read.
                                  connection->writing = false;
                                  if (!exchange->repeatable) exchange->written = {};
                                });
  }

  void have_read(const ConnectionPtr& connection, const ErrorCode& error, size_t size) {
    connection->filled += size;
    if (!connection->exchange) return drop(connection);  // kept, and either ended or saying what nobody asked for
    if (error) return broken(connection, error);
    if (parse(connection)) connection->read();
  }

  // False where nothing more is to be read from it now.
  bool parse(const ConnectionPtr& connection) {
    const ExchangePtr exchange = connection->exchange;
    Parser& parser = *connection->parser;
    size_t used = 0;
    ErrorCode error;
    while (used < connection->filled && !parser.is_done()) {
      used += parser.put(internal::asio::buffer(connection->buffer.data() + used, connection->filled - used), error);
      if (error) break;
    }
    if (error && error != http::error::need_more) {
      fail(exchange, Error(Code::kDataLoss, exchange->what + ": the answer is no HTTP/1.1: " + error.message()));
      return false;
    }
    std::copy(connection->buffer.begin() + static_cast<ptrdiff_t>(used),
              connection->buffer.begin() + static_cast<ptrdiff_t>(connection->filled), connection->buffer.begin());
    connection->filled -= used;
    if (!tell(connection, exchange)) return false;
    if (parser.is_done()) return done(connection, exchange);
    if (connection->filled < connection->buffer.size()) return true;
    fail(exchange, Error(Code::kResourceExhausted, exchange->what + ": the head of the answer is too long"));
    return false;
  }

  // Passes on what has come; false where the exchange ended over it.
  bool tell(const ConnectionPtr& connection, const ExchangePtr& exchange) {
    Parser& parser = *connection->parser;
    if (!parser.is_header_done()) return true;
    const auto self = shared_from_this();
    if (!connection->head_told) {
      connection->head_told = true;
      if (exchange->long_lived) {
        exchange->deadline.reset();
        watch_silence(exchange);
      }
      Headers headers;
      for (const auto& field : parser.get())
        headers.emplace_back(std::string(field.name_string()), std::string(field.value()));
      if (exchange->handler.on_head) exchange->handler.on_head(static_cast<int>(parser.get().result_int()), headers);
      if (exchange->ended) return false;
    }
    std::string& body = parser.get().body();
    if (body.empty()) return true;
    if (exchange->long_lived) watch_silence(exchange);
    if (exchange->handler.on_piece) {
      Status taken = exchange->handler.on_piece(body);
      if (exchange->ended) return false;
      if (!taken) {
        fail(exchange, taken.error().with_context(exchange->what));
        return false;
      }
    }
    body.clear();
    return true;
  }

  void watch_silence(const ExchangePtr& exchange) {
    if (exchange->idle_limit <= Duration(0)) return;
    exchange->silence = loop.after(exchange->idle_limit, [this, e = exchange.get()] {
      fail(e->shared_from_this(), Error(Code::kUnavailable, e->what + ": nothing came for " + to_string(e->idle_limit) +
                                                                "; the connection is taken for dead"));
    });
  }

  bool done(const ConnectionPtr& connection, const ExchangePtr& exchange) {
    const bool keep = connection->parser->keep_alive() && !connection->writing && connection->filled == 0 &&
                      !connection->stale && kept.size() < settings.max_idle;
    connection->used = true;
    connection->exchange.reset();
    exchange->connection.reset();
    if (keep) {
      connection->parser.reset();
      kept.push_back(connection);
      connection->idle =
          loop.after(settings.idle_timeout, [this, c = connection.get()] { drop(c->shared_from_this()); });
    } else {
      drop(connection);
    }
    end(exchange, {});
    return keep && !connection->closed;
  }

  void broken(const ConnectionPtr& connection, ErrorCode error) {
    const ExchangePtr exchange = connection->exchange;
    Parser& parser = *connection->parser;
    if (error == internal::asio::error::eof && parser.got_some()) {
      ErrorCode wrong;
      parser.put_eof(wrong);  // a body without a length ends so
      if (!wrong && parser.is_done()) {
        connection->stale = true;
        if (tell(connection, exchange)) done(connection, exchange);
        return;
      }
    }
    const bool nothing_came = !parser.got_some();
    Error why = connection->stream.to_error(exchange->what, error);
    // The handshake is over. What TLS refuses now is damaged on its way, but for TLS 1.3's late word on our
    // certificate.
    if (why.code == Code::kUnauthenticated && why.message.find("certificate") == std::string::npos &&
        why.message.find("unknown ca") == std::string::npos) {
      why.code = Code::kUnavailable;
    }
    if (nothing_came && connection->used && exchange->repeatable && !exchange->again) {
      ++metrics.repeated;
      exchange->again = true;
      exchange->connection.reset();
      connection->exchange.reset();
      drop(connection);
      return begin(exchange);
    }
    if (!exchange->repeatable && nothing_came) why.message += " before the answer; the request may have taken effect";
    fail(exchange, std::move(why));
  }

  void drop(const ConnectionPtr& connection) {
    connection->close();
    kept.erase(std::remove(kept.begin(), kept.end(), connection), kept.end());
    connections.erase(connection);
  }

  void fail(ExchangePtr exchange, Error error) {
    if (exchange->ended) return;
    leave(exchange, true);
    const auto on_end = std::move(exchange->handler.on_end);
    if (on_end) on_end(std::move(error));
  }

  void end(const ExchangePtr& exchange, Status status) {
    if (exchange->ended) return;
    leave(exchange, true);
    const auto on_end = std::move(exchange->handler.on_end);
    if (on_end) on_end(std::move(status));
  }

  // Takes an exchange out of everything; its connection, if it is on one, can't be used any more.
  void leave(const ExchangePtr& exchange, bool keep_handler) {
    release(*exchange);
    if (!keep_handler) graveyard(exchange);
    if (const ConnectionPtr connection = std::exchange(exchange->connection, nullptr)) {
      connection->exchange.reset();
      drop(connection);
    }
    exchanges.erase(exchange);
    line.erase(std::remove(line.begin(), line.end(), exchange), line.end());
    if (exchange->counted) --busy;
    exchange->counted = false;
    while (!line.empty() && busy < settings.max_busy) {
      const ExchangePtr next = line.front();
      line.pop_front();
      begin(next);
    }
  }

  // The handler may be running: it goes when the loop is back.
  void graveyard(const ExchangePtr& exchange) {
    loop.post([handler = std::make_shared<HttpPoolHandler>(std::move(exchange->handler))] {});
    exchange->handler = {};
  }

  static void release(Exchange& exchange) {
    exchange.ended = true;
    exchange.lookup.reset();
    exchange.connector.reset();
    exchange.deadline.reset();
    exchange.silence.reset();
  }

  void renew() {
    for (const auto& connection : connections) connection->stale = true;
    for (const auto& connection : std::vector<ConnectionPtr>(kept)) drop(connection);
  }

  AsioLoop& loop;
  HttpPoolSettings settings;
  HttpPoolMetrics metrics;
  std::set<ExchangePtr> exchanges;
  std::deque<ExchangePtr> line;
  std::set<ConnectionPtr> connections;
  std::vector<ConnectionPtr> kept;
  size_t busy = 0;
};

HttpPool::HttpPool(AsioLoop& loop, HttpPoolSettings settings)
    : impl_(std::make_shared<Impl>(loop, std::move(settings))) {}
HttpPool::~HttpPool() { impl_->close_all(); }

HttpExchangePtr HttpPool::send(HttpPoolCall call, HttpPoolHandler handler) {
  return impl_->send(std::move(call), std::move(handler));
}
void HttpPool::renew() { impl_->renew(); }
const HttpPoolMetrics& HttpPool::metrics() const { return impl_->metrics; }
size_t HttpPool::connections() const { return impl_->connections.size(); }

}  // namespace pitcrew::net
