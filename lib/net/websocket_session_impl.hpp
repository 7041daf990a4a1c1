#pragma once

// Internal to lib/net.

#include <deque>
#include <functional>
#include <memory>
#include <optional>

#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/websocket/stream.hpp>

#include "lib/net/stream.hpp"
#include "lib/net/websocket_session.hpp"

namespace pitcrew::net::internal {

struct SessionSettings {
  size_t max_message_bytes;
  size_t max_queue_bytes;
  Duration handshake_timeout;
  Duration ping_timeout;
};

// A WebSocket over a Stream, for the server's and the client's end alike. Held by pending operations and by its owner;
// ends by itself, or by cut().
class SessionImpl final : public WebSocketSession, public std::enable_shared_from_this<SessionImpl> {
 public:
  using WebSocket = boost::beast::websocket::stream<Stream, false>;  // without permessage-deflate
  using Upgrade = boost::beast::http::request<boost::beast::http::empty_body>;

  struct Events {
    std::function<void()> on_open;
    std::function<void(std::string text)> on_message;
    std::function<void(const WebSocketClose& close)> on_close;  // once, also when it never opened
  };

  SessionImpl(AsioLoop& loop, Stream stream, Address peer, const SessionSettings& settings, Events events);

  void accept(Upgrade request);
  void connect(const std::string& host, const std::string& path, Headers headers);
  // Ends at once, without on_close.
  void cut();
  void keep(std::any context) { context_ = std::move(context); }
  // Something to hold until the session has ended.
  void keep_slot(std::shared_ptr<void> slot) { slot_ = std::move(slot); }

  uint64_t id() const override { return id_; }
  const Address& peer() const override { return peer_; }
  std::any& context() override { return context_; }
  bool open() const override { return state_ == State::kOpen; }
  bool send(std::string text) override;
  size_t queued_bytes() const override { return queued_; }
  void close(uint16_t code, std::string_view reason) override;

 private:
  enum class State { kOpening, kOpen, kClosing, kEnded };

  void opened();
  void read();
  void have_read(const ErrorCode& error);
  void write();
  void send_close();
  WebSocketClose close_of(const ErrorCode& error) const;
  void end(WebSocketClose close);

  AsioLoop& loop_;
  WebSocket socket_;
  Address peer_;
  SessionSettings settings_;
  Events events_;
  uint64_t id_;
  std::any context_;
  std::shared_ptr<void> slot_;
  State state_ = State::kOpening;
  boost::beast::flat_buffer buffer_;
  std::deque<std::string> queue_;  // the first is being written
  size_t queued_ = 0;
  bool writing_ = false;
  bool close_sent_ = false;
  std::optional<WebSocketClose> ours_;  // what close() was asked to say
  Loop::TimerPtr close_deadline_;
  std::string host_;
  std::string path_;
  boost::beast::http::response<boost::beast::http::string_body> answer_;
};

}  // namespace pitcrew::net::internal
