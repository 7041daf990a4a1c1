#include "lib/net/http_connection.hpp"

#include <limits>
#include <optional>

#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

#include "lib/net/http_wire.hpp"

namespace pitcrew::net::internal {

namespace http = boost::beast::http;
using Parser = http::request_parser<http::string_body>;

// One client's connection: reads a request, waits for its answer, writes it, reads the next. While a request is being
// answered one read stays under way, so that a client that goes away is noticed; what it brings waits in the buffer.
class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(std::shared_ptr<HttpServerShared> shared, Stream stream, Address peer, ConnectionSlot slot)
      : shared_(std::move(shared)), stream_(std::move(stream)), peer_(std::move(peer)), slot_(std::move(slot)) {}

  void begin() {
    shared_->connections.insert(shared_from_this());
    next_request(true);
  }

  void end() {
    if (phase_ == Phase::kEnded) return;
    phase_ = Phase::kEnded;
    read_deadline_.reset();
    write_deadline_.reset();
    stream_.close();
    slot_.reset();
    const auto self = shared_from_this();
    shared_->connections.erase(self);
    if (auto closed = std::exchange(on_closed_, nullptr)) {
      shared_->loop.post([closed = std::move(closed), alive = std::weak_ptr<int>(stream_alive_)] {
        if (alive.lock()) closed();
      });
    }
    on_drained_ = nullptr;
  }

  bool open() const { return phase_ != Phase::kEnded; }
  bool waiting_for(uint64_t exchange) const { return phase_ == Phase::kAnswering && exchange == exchange_; }
  bool streaming(uint64_t exchange) const { return phase_ == Phase::kStreaming && exchange == exchange_; }

  void respond(HttpResponse response) {
    phase_ = Phase::kWriting;
    keep_alive_ = keep_alive_ && !peer_finished_;
    const bool head_only = method_ == "HEAD" || response.status == 204 || response.status == 304;
    queue_ += response_head(response, BodyFraming::kLength, keep_alive_);
    if (!head_only) queue_ += response.body;
    write_next();
  }

  std::shared_ptr<int> begin_stream(HttpResponse head) {
    phase_ = Phase::kStreaming;
    stream_alive_ = std::make_shared<int>(0);
    chunked_ = version_ >= 11;
    keep_alive_ = keep_alive_ && chunked_;
    queue_ += response_head(head, chunked_ ? BodyFraming::kChunked : BodyFraming::kUntilClose, keep_alive_);
    if (!head.body.empty()) queue_ += chunked_ ? chunk(head.body) : head.body;
    write_next();
    return stream_alive_;
  }

  bool write_piece(std::string_view piece) {
    if (phase_ != Phase::kStreaming) return false;
    if (piece.empty()) return true;
    if (queue_.size() + piece.size() > shared_->settings.max_stream_queue_bytes) {
      shared_->log.warning("HTTP stream cut: the client is too slow",
                           {{"peer", to_string(peer_)}, {"queuedBytes", queue_.size()}});
      end();
      return false;
    }
    queue_ += chunked_ ? chunk(piece) : std::string(piece);
    write_next();
    return true;
  }

  void finish_stream() {
    if (phase_ != Phase::kStreaming) return;
    on_closed_ = nullptr;
    on_drained_ = nullptr;
    phase_ = Phase::kWriting;
    if (chunked_) queue_ += kLastChunk;
    if (!writing_) write_next();
  }

  size_t queued_bytes() const { return queue_.size() + (writing_ ? written_.size() : 0); }
  void set_on_closed(std::function<void()> function) { on_closed_ = std::move(function); }
  void set_on_drained(std::function<void()> function) { on_drained_ = std::move(function); }

 private:
  enum class Phase { kIdle, kReading, kAnswering, kStreaming, kWriting, kEnded };

  void next_request(bool first) {
    phase_ = Phase::kIdle;
    parser_.emplace();
    parser_->eager(true);
    parser_->header_limit(static_cast<uint32_t>(shared_->settings.max_head_bytes));
    parser_->body_limit(shared_->settings.max_body_bytes);
    continued_ = false;
    read_within(first ? shared_->settings.request_timeout : shared_->settings.idle_timeout);
    if (buffer_.size() > 0) {
      parse();
    } else if (peer_finished_) {
      end();
    } else {
      read_more();
    }
  }

  void read_within(Duration timeout) {
    read_deadline_ = shared_->loop.after(timeout, [this] {
      const auto self = shared_from_this();
      if (phase_ != Phase::kReading) return end();
      refuse(408, "the request was not complete in " + to_string(shared_->settings.request_timeout));
    });
  }

  void read_more() {
    if (reading_) return;
    reading_ = true;
    const auto space = buffer_.prepare(4096);
    stream_.read(
        {static_cast<char*>(space.data()), space.size()},
        IoCallback([self = shared_from_this()](const ErrorCode& error, size_t size) { self->have_read(error, size); }));
  }

  void have_read(const ErrorCode& error, size_t size) {
    reading_ = false;
    buffer_.commit(size);
    if (phase_ == Phase::kEnded) return;
    if (error) {
      peer_finished_ = true;
      // A client that has only finished sending may still want its one answer.
      const bool may_still_listen =
          error == asio::error::eof && (phase_ == Phase::kAnswering || (phase_ == Phase::kWriting && writing_));
      if (!may_still_listen) end();
      return;
    }
    if (phase_ == Phase::kIdle || phase_ == Phase::kReading) parse();
  }

  void parse() {
    if (phase_ == Phase::kIdle) {
      phase_ = Phase::kReading;
      read_within(shared_->settings.request_timeout);
    }
    ErrorCode error;
    while (buffer_.size() > 0 && !parser_->is_done()) {
      const size_t used = parser_->put(buffer_.data(), error);
      buffer_.consume(used);
      if (error == http::error::need_more) {
        error = {};
        break;
      }
      if (error) break;
    }
    if (error == http::error::body_limit) {
      return refuse(413, "a body may have " + std::to_string(shared_->settings.max_body_bytes) + " bytes");
    }
    if (error == http::error::header_limit) {
      return refuse(431, "the header fields may have " + std::to_string(shared_->settings.max_head_bytes) + " bytes");
    }
    if (error) return refuse(400, "this is no HTTP/1.1 request: " + error.message());
    if (parser_->is_done()) return dispatch();
    if (parser_->is_header_done() && !continued_ &&
        boost::beast::iequals(parser_->get()[http::field::expect], "100-continue")) {
      continued_ = true;
      queue_ += "HTTP/1.1 100 Continue\r\n\r\n";
      write_next();
    }
    read_more();
  }

  void dispatch();

  void refuse(int status, const std::string& why) {
    keep_alive_ = false;
    method_.clear();
    read_deadline_.reset();
    respond(text_response(status, why + "\n"));
  }

  void write_next() {
    if (writing_ || phase_ == Phase::kEnded) return;
    if (queue_.empty()) return written_all();
    writing_ = true;
    written_ = std::exchange(queue_, {});
    write_deadline_ = shared_->loop.after(shared_->settings.write_timeout, [this] {
      const auto self = shared_from_this();
      shared_->log.warning("HTTP connection cut: the client takes no bytes", {{"peer", to_string(peer_)}});
      end();
    });
    asio::async_write(stream_, asio::buffer(written_), [self = shared_from_this()](const ErrorCode& error, size_t) {
      self->writing_ = false;
      self->written_.clear();
      self->write_deadline_.reset();
      if (error) return self->end();
      self->write_next();
    });
  }

  void written_all() {
    written_.shrink_to_fit();
    if (phase_ == Phase::kStreaming && on_drained_) {
      const auto drained = on_drained_;
      drained();
      return;
    }
    if (phase_ != Phase::kWriting) return;
    if (keep_alive_) return next_request(false);
    // The peer shall read the answer before the socket goes: what it still sends is dropped, for a bounded time.
    linger();
  }

  void linger() {
    read_deadline_ = shared_->loop.after(std::min<Duration>(shared_->settings.write_timeout, seconds(2)), [this] {
      const auto self = shared_from_this();
      end();
    });
    if (reading_) return stream_.say_end();  // the read under way learns that the peer has closed
    stream_.finish(IoCallback([self = shared_from_this()](const ErrorCode&, size_t) { self->end(); }));
  }

  std::shared_ptr<HttpServerShared> shared_;
  Stream stream_;
  Address peer_;
  ConnectionSlot slot_;
  Phase phase_ = Phase::kIdle;
  boost::beast::flat_buffer buffer_;
  std::optional<Parser> parser_;
  Loop::TimerPtr read_deadline_;
  Loop::TimerPtr write_deadline_;
  std::string queue_;    // next to be written
  std::string written_;  // being written
  bool reading_ = false;
  bool writing_ = false;
  bool peer_finished_ = false;
  bool continued_ = false;
  bool keep_alive_ = true;
  bool chunked_ = true;
  unsigned version_ = 11;
  std::string method_;
  uint64_t exchange_ = 0;
  std::shared_ptr<int> stream_alive_;
  std::function<void()> on_closed_;
  std::function<void()> on_drained_;
};

namespace {

class Streaming final : public StreamingResponder {
 public:
  Streaming(std::shared_ptr<HttpConnection> connection, uint64_t exchange, std::shared_ptr<int> alive)
      : connection_(std::move(connection)), exchange_(exchange), alive_(std::move(alive)) {}
  ~Streaming() override {
    if (!open()) return;
    connection_->set_on_closed(nullptr);
    connection_->end();
  }
  bool write(std::string_view piece) override { return open() && connection_->write_piece(piece); }
  void finish() override {
    if (open()) connection_->finish_stream();
  }
  bool open() const override { return connection_->streaming(exchange_); }
  size_t queued_bytes() const override { return open() ? connection_->queued_bytes() : 0; }
  void on_closed(std::function<void()> function) override {
    if (open()) connection_->set_on_closed(std::move(function));
  }
  void on_drained(std::function<void()> function) override {
    if (open()) connection_->set_on_drained(std::move(function));
  }

 private:
  std::shared_ptr<HttpConnection> connection_;
  uint64_t exchange_;
  std::shared_ptr<int> alive_;  // on_closed is not called once this is gone
};

class GoneStream final : public StreamingResponder {
 public:
  bool write(std::string_view) override { return false; }
  void finish() override {}
  bool open() const override { return false; }
  size_t queued_bytes() const override { return 0; }
  void on_closed(std::function<void()>) override {}
  void on_drained(std::function<void()>) override {}
};

class Responder final : public HttpResponder {
 public:
  Responder(std::shared_ptr<HttpConnection> connection, uint64_t exchange)
      : connection_(std::move(connection)), exchange_(exchange) {}
  ~Responder() override {
    if (open()) connection_->respond(text_response(500, "the server gave no answer\n"));
  }
  void respond(HttpResponse response) override {
    if (open()) connection_->respond(std::move(response));
  }
  StreamingResponderPtr stream(HttpResponse head) override {
    if (!open()) return std::make_unique<GoneStream>();
    auto alive = connection_->begin_stream(std::move(head));
    return std::make_unique<Streaming>(connection_, exchange_, std::move(alive));
  }
  bool open() const override { return connection_->waiting_for(exchange_); }

 private:
  std::shared_ptr<HttpConnection> connection_;
  uint64_t exchange_;
};

}  // namespace

void HttpConnection::dispatch() {
  read_deadline_.reset();
  phase_ = Phase::kAnswering;
  auto message = parser_->release();
  parser_.reset();
  version_ = message.version();
  keep_alive_ = message.keep_alive();
  HttpRequest request;
  request.method = std::string(message.method_string());
  request.target = std::string(message.target());
  for (const auto& field : message)
    request.headers.emplace_back(std::string(field.name_string()), std::string(field.value()));
  request.body = std::move(message.body());
  request.peer = peer_;
  method_ = request.method;
  ++exchange_;
  if (buffer_.size() == 0) {
    if (buffer_.capacity() > 16 * 1024) buffer_ = {};
    read_more();
  }
  const auto handler = shared_->handler;
  (*handler)(std::move(request), std::make_unique<Responder>(shared_from_this(), exchange_));
}

void serve_http(const std::shared_ptr<HttpServerShared>& shared, Stream stream, Address peer, ConnectionSlot slot) {
  std::make_shared<HttpConnection>(shared, std::move(stream), std::move(peer), std::move(slot))->begin();
}

void end_http_connections(HttpServerShared& shared) {
  while (!shared.connections.empty()) (*shared.connections.begin())->end();
}

}  // namespace pitcrew::net::internal
