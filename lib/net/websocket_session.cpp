#include "lib/net/websocket_session.hpp"

#include <atomic>

#include <boost/beast/core/buffers_to_string.hpp>
#include <boost/beast/http/status.hpp>
#include <boost/beast/websocket/rfc6455.hpp>

#include "lib/net/websocket_session_impl.hpp"

namespace pitcrew::net::internal {

namespace websocket = boost::beast::websocket;
namespace http = boost::beast::http;

namespace {

uint64_t next_id() {
  static std::atomic<uint64_t> next{1};
  return next++;
}

// A close frame carries at most 123 bytes of reason; a character of UTF-8 is not cut in two.
std::string shortened(std::string_view reason) {
  if (reason.size() > 123) {
    size_t end = 123;
    while (end > 0 && (static_cast<unsigned char>(reason[end]) & 0xc0) == 0x80) --end;
    reason = reason.substr(0, end);
  }
  return std::string(reason);
}

}  // namespace

SessionImpl::SessionImpl(AsioLoop& loop, Stream stream, Address peer, const SessionSettings& settings, Events events)
    : loop_(loop),
      socket_(std::move(stream)),
      peer_(std::move(peer)),
      settings_(settings),
      events_(std::move(events)),
      id_(next_id()) {
  websocket::stream_base::timeout timeouts{};
  timeouts.handshake_timeout =
      std::chrono::duration_cast<std::chrono::steady_clock::duration>(settings.handshake_timeout);
  timeouts.idle_timeout = std::chrono::duration_cast<std::chrono::steady_clock::duration>(settings.ping_timeout);
  timeouts.keep_alive_pings = true;
  socket_.set_option(timeouts);
  socket_.read_message_max(settings.max_message_bytes);
  // One frame a message: in pieces each would be a record and a system call of its own.
  socket_.auto_fragment(false);
  socket_.text(true);
}

void SessionImpl::accept(Upgrade request) {
  const auto held = std::make_shared<Upgrade>(std::move(request));
  socket_.async_accept(*held, [self = shared_from_this(), held](const ErrorCode& error) {
    if (self->state_ == State::kEnded) return;
    if (error) return self->end(self->close_of(error));
    self->opened();
  });
}

void SessionImpl::connect(const std::string& host, const std::string& path, Headers headers) {
  host_ = host;
  path_ = path;
  socket_.set_option(
      websocket::stream_base::decorator([headers = std::move(headers)](websocket::request_type& request) {
        for (const auto& [name, value] : headers) request.set(name, value);
      }));
  socket_.async_handshake(answer_, host_, path_, [self = shared_from_this()](const ErrorCode& error) {
    if (self->state_ == State::kEnded) return;
    if (error == websocket::error::upgrade_declined) {
      return self->end({close_code::kAbnormal,
                        "refused with " + std::to_string(self->answer_.result_int()) + ": " + self->answer_.body()});
    }
    if (error) return self->end(self->close_of(error));
    self->answer_ = {};
    self->opened();
  });
}

void SessionImpl::opened() {
  if (ours_) {  // close() came first
    state_ = State::kClosing;
    send_close();
    return read();
  }
  state_ = State::kOpen;
  read();
  if (events_.on_open) events_.on_open();
}

void SessionImpl::read() {
  socket_.async_read(buffer_, [self = shared_from_this()](const ErrorCode& error, size_t) { self->have_read(error); });
}

void SessionImpl::have_read(const ErrorCode& error) {
  if (state_ == State::kEnded) return;
  if (error) return end(close_of(error));
  if (!socket_.got_text()) {
    close(close_code::kPolicy, "only text messages are understood");
  } else if (state_ == State::kOpen && events_.on_message) {
    std::string text = boost::beast::buffers_to_string(buffer_.data());
    buffer_.consume(buffer_.size());
    if (buffer_.capacity() > 2048) buffer_ = {};  // idle sessions are many: 20 kB each
    events_.on_message(std::move(text));
    if (state_ == State::kEnded) return;
  }
  buffer_.consume(buffer_.size());
  read();
}

bool SessionImpl::send(std::string text) {
  if (state_ != State::kOpen) return false;
  if (queued_ + text.size() > settings_.max_queue_bytes) {
    const std::string reason =
        "send queue full: " + std::to_string(queued_) + " bytes wait for a peer that is too slow";
    state_ = State::kClosing;
    ours_ = WebSocketClose{close_code::kPolicy, reason};
    loop_.post([self = shared_from_this(), reason] { self->end({close_code::kPolicy, reason}); });
    return false;
  }
  queued_ += text.size();
  queue_.push_back(std::move(text));
  write();
  return true;
}

void SessionImpl::write() {
  if (writing_ || queue_.empty()) return;
  writing_ = true;
  socket_.async_write(asio::buffer(queue_.front()), [self = shared_from_this()](const ErrorCode& error, size_t) {
    self->writing_ = false;
    if (self->state_ == State::kEnded) return;
    if (error) {
      // The read under way ends too and knows better why; where a close has begun that is what counts.
      if (error == asio::error::operation_aborted || error == websocket::error::closed) return;
      return self->end(self->close_of(error));
    }
    self->queued_ -= self->queue_.front().size();
    self->queue_.pop_front();
    if (self->queue_.empty() && self->state_ == State::kClosing) return self->send_close();
    self->write();
  });
}

void SessionImpl::close(uint16_t code, std::string_view reason) {
  if (state_ == State::kEnded || ours_) return;
  ours_ = WebSocketClose{code, shortened(reason)};
  if (state_ == State::kOpening) return;
  state_ = State::kClosing;
  close_deadline_ = loop_.after(settings_.handshake_timeout, [this] {
    const auto self = shared_from_this();
    end(*ours_);
  });
  if (queue_.empty()) send_close();
}

void SessionImpl::send_close() {
  if (std::exchange(close_sent_, true)) return;
  socket_.async_close(websocket::close_reason(static_cast<websocket::close_code>(ours_->code), ours_->reason.c_str()),
                      [self = shared_from_this()](const ErrorCode&) {
                        if (self->state_ != State::kEnded) self->end(*self->ours_);
                      });
}

WebSocketClose SessionImpl::close_of(const ErrorCode& error) const {
  if (ours_) return *ours_;
  if (error == websocket::error::closed) {
    const auto& said = socket_.reason();
    return {static_cast<uint16_t>(said.code), std::string(said.reason.data(), said.reason.size())};
  }
  if (error == websocket::error::message_too_big || error == websocket::error::buffer_overflow) {
    return {close_code::kTooBig,
            "the peer's message has more than " + std::to_string(settings_.max_message_bytes) + " bytes"};
  }
  if (error == boost::beast::error::timeout) {
    const bool opening = state_ == State::kOpening;
    return {close_code::kAbnormal,
            opening ? "the WebSocket handshake took more than " + to_string(settings_.handshake_timeout)
                    : "the peer was silent for " + to_string(settings_.ping_timeout)};
  }
  return {close_code::kAbnormal, socket_.next_layer().describe(error)};
}

void SessionImpl::end(WebSocketClose close) {
  if (state_ == State::kEnded) return;
  const auto self = shared_from_this();
  auto on_close = std::move(events_.on_close);
  cut();
  if (on_close) on_close(close);
}

void SessionImpl::cut() {
  if (state_ == State::kEnded) return;
  state_ = State::kEnded;
  close_deadline_.reset();
  // They may be running.
  loop_.post([events = std::make_shared<Events>(std::move(events_))] {});
  events_ = {};
  slot_.reset();
  socket_.next_layer().close();
}

}  // namespace pitcrew::net::internal
