#include "operator/channel/memory_channel.hpp"

#include <utility>

#include "lib/base/delayed.hpp"

namespace pitcrew::control {

// What both ends share. A closed end hears nothing more; a cut connection carries nothing more.
struct MemoryChannelServer::Connection::State {
  State(Loop& loop, Duration latency) : latency(latency), later(loop) {}

  Duration latency;
  Delayed later;
  bool cut = false;
  bool launcher_open = true;  // the launcher's end still wants to hear
  bool operator_open = true;  // the operator's end, likewise
  Connection::Callbacks callbacks;
  ChannelHandler* handler = nullptr;
  ChannelSessionPtr session;  // until closed

  void end_operator_side(const std::string& reason) {
    if (!operator_open || handler == nullptr || !session) return;
    operator_open = false;
    const ChannelSessionPtr ended = std::move(session);
    handler->closed(ended, reason);
  }
};

class MemoryChannelServer::Session final : public ChannelSession {
 public:
  using State = Connection::State;
  Session(std::weak_ptr<State> state, std::string token, std::string peer)
      : state_(std::move(state)), token_(std::move(token)), peer_(std::move(peer)) {}

  const std::string& token() const override { return token_; }
  const std::string& peer() const override { return peer_; }

  void send(std::string message) override {
    const auto state = state_.lock();
    if (!state || closing_ || !state->operator_open || state->cut) return;
    state->later.after(state->latency, [weak = state_, message = std::move(message)]() mutable {
      const auto state = weak.lock();
      if (!state || state->cut || !state->launcher_open) return;
      const auto received = state->callbacks.received;
      if (received) received(std::move(message));
    });
  }

  void close(CloseCode code, std::string reason) override {
    const auto state = state_.lock();
    if (!state || closing_ || !state->operator_open) return;
    closing_ = true;
    state->later.after(state->latency, [weak = state_, code, reason] {
      const auto state = weak.lock();
      if (!state) return;
      if (!state->cut && state->launcher_open) {
        state->launcher_open = false;
        const auto closed = state->callbacks.closed;
        if (closed) closed(code, reason);
      }
      state->end_operator_side(reason);
    });
  }

 private:
  std::weak_ptr<State> state_;
  std::string token_;
  std::string peer_;
  bool closing_ = false;
};

MemoryChannelServer::Connection::Connection(std::shared_ptr<State> state) : state_(std::move(state)) {}

MemoryChannelServer::Connection::~Connection() { close(); }

bool MemoryChannelServer::Connection::open() const { return state_->launcher_open; }

void MemoryChannelServer::Connection::send(std::string message) {
  if (!state_->launcher_open || state_->cut) return;
  state_->later.after(state_->latency, [weak = std::weak_ptr(state_), message = std::move(message)] {
    const auto state = weak.lock();
    if (!state || state->cut || !state->operator_open || !state->session) return;
    const ChannelSessionPtr session = state->session;
    state->handler->received(session, message);
  });
}

void MemoryChannelServer::Connection::close() {
  if (!state_->launcher_open) return;
  state_->launcher_open = false;
  if (state_->cut) return;  // nobody hears of it before a ping goes unanswered
  state_->later.after(state_->latency,
                      [state = state_] { state->end_operator_side("the launcher closed the connection"); });
}

void MemoryChannelServer::Connection::cut() {
  if (state_->cut) return;
  state_->cut = true;
  state_->later.after(kPingTimeout, [state = state_] {
    state->end_operator_side(std::string(kFellSilent) + "no answer to a ping");
    if (!state->launcher_open) return;
    state->launcher_open = false;
    const auto closed = state->callbacks.closed;
    if (closed) closed(CloseCode::kLost, "no answer to a ping");
  });
}

MemoryChannelServer::MemoryChannelServer(Loop& loop, api::channel::Config config, Duration latency)
    : loop_(loop), config_(std::move(config)), latency_(latency) {}

MemoryChannelServer::~MemoryChannelServer() { stop(); }

void MemoryChannelServer::start(ChannelHandler& handler) { handler_ = &handler; }

void MemoryChannelServer::stop() {
  handler_ = nullptr;
  for (auto& [id, weak] : connections_) {
    const auto state = weak.lock();
    if (!state) continue;
    state->operator_open = false;
    state->session.reset();
    if (!state->launcher_open || state->cut) continue;
    state->later.after(state->latency, [weak = weak] {
      const auto state = weak.lock();
      if (!state || state->cut || !state->launcher_open) return;
      state->launcher_open = false;
      const auto closed = state->callbacks.closed;
      if (closed) closed(CloseCode::kGoingAway, "the operator has ended");
    });
  }
  connections_.clear();
}

void MemoryChannelServer::set_config(api::channel::Config config) {
  config_ = std::move(config);
  if (handler_ != nullptr) handler_->config_changed();
}

std::unique_ptr<MemoryChannelServer::Connection> MemoryChannelServer::connect(std::string token, std::string peer,
                                                                              Connection::Callbacks callbacks) {
  if (handler_ == nullptr) return nullptr;
  std::erase_if(connections_, [](const auto& entry) { return entry.second.expired(); });
  auto state = std::make_shared<Connection::State>(loop_, latency_);
  state->callbacks = std::move(callbacks);
  state->handler = handler_;
  state->session = std::make_shared<Session>(state, std::move(token), std::move(peer));
  connections_[next_++] = state;
  state->later.after(latency_, [weak = std::weak_ptr(state)] {
    const auto state = weak.lock();
    if (!state || state->cut || !state->session) return;
    const ChannelSessionPtr session = state->session;
    state->handler->opened(session);
  });
  return std::unique_ptr<Connection>(new Connection(std::move(state)));
}

}  // namespace pitcrew::control
