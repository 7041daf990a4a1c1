#include "lib/net/reconnecting_client.hpp"

#include <algorithm>
#include <optional>

namespace pitcrew::net {

struct ReconnectingClient::State : std::enable_shared_from_this<State> {
  State(AsioLoop& l, ReconnectSettings s, ReconnectHandler h, Random r, Logger g)
      : loop(l), settings(std::move(s)), handler(std::move(h)), random(r), log(std::move(g)) {}

  AsioLoop& loop;
  ReconnectSettings settings;
  ReconnectHandler handler;
  Random random;
  Logger log;
  std::unique_ptr<WebSocketClient> client;
  Loop::TimerPtr wait;
  Address address;                // of the attempt or session
  std::optional<TlsTrust> trust;  // it was made under
  size_t next_address = 0;
  uint32_t attempts = 0;  // since a session was last open for long
  Instant opened_at;
  bool opened = false;
  bool stopped = false;
  bool ended = false;

  void attempt() {
    wait.reset();
    if (stopped || ended || settings.addresses.empty()) return;
    address = settings.addresses[next_address++ % settings.addresses.size()];
    trust = settings.trust;
    opened = false;
    WebSocketClientSettings attempt{address,
                                    settings.trust,
                                    settings.path,
                                    settings.headers ? settings.headers() : Headers(),
                                    settings.max_message_bytes,
                                    settings.max_queue_bytes,
                                    settings.connect_timeout,
                                    settings.ping_timeout};
    WebSocketClientHandler events;
    events.on_open = [this](const WebSocketSessionPtr&) {
      const auto self = shared_from_this();
      opened = true;
      opened_at = loop.now();
      if (handler.on_open) handler.on_open(address);
    };
    events.on_message = [this](std::string text) {
      const auto self = shared_from_this();
      if (handler.on_message) handler.on_message(std::move(text));
    };
    events.on_close = [this](const WebSocketClose& close) { closed(close); };
    client = WebSocketClient::connect(loop, std::move(attempt), std::move(events));
  }

  void closed(const WebSocketClose& close) {
    const auto self = shared_from_this();
    const bool was_open = std::exchange(opened, false);
    if (was_open && loop.now() - opened_at >= settings.longest_delay) attempts = 0;
    const auto gone = std::move(client);
    schedule();
    if (was_open) {
      log.info("session closed", {{"address", to_string(address)}, {"code", close.code}, {"reason", close.reason}});
      if (handler.on_close) handler.on_close(close);
    } else {
      log.info("no session", {{"address", to_string(address)}, {"reason", close.reason}});
      if (handler.on_failed_attempt) handler.on_failed_attempt(address, close);
    }
  }

  void schedule() {
    if (stopped || ended) return;
    const uint32_t doublings = std::min<uint32_t>(attempts++, 16);
    const Duration bound = std::min(settings.longest_delay, settings.shortest_delay * (int64_t{1} << doublings));
    wait = loop.after(from_seconds(to_seconds(bound) * random.uniform()), [this] {
      const auto self = shared_from_this();
      attempt();
    });
  }

  void apply(ReconnectSettings changed) {
    const auto self = shared_from_this();
    settings = std::move(changed);
    if (stopped || ended) return;
    const auto& addresses = settings.addresses;
    const bool listed = std::find(addresses.begin(), addresses.end(), address) != addresses.end();
    const auto same = [&](std::string TlsTrust::*field) {
      return trust.has_value() == settings.trust.has_value() && (!trust || (*trust).*field == (*settings.trust).*field);
    };
    if (opened) {
      if (listed && same(&TlsTrust::server_name)) return;
      if (const auto session = client->session()) session->close(close_code::kGoingAway, "the settings have changed");
      attempts = 0;
      return;
    }
    if (client && listed && same(&TlsTrust::server_name) && same(&TlsTrust::ca_bundle_pem)) return;
    // An attempt that no longer helps is given up; the settings may be what was wrong.
    client.reset();
    attempts = 0;
    next_address = 0;
    attempt();
  }
};

ReconnectingClient::ReconnectingClient(AsioLoop& loop, ReconnectSettings settings, ReconnectHandler handler,
                                       Random random, Logger log)
    : state_(std::make_shared<State>(loop, std::move(settings), std::move(handler), random, std::move(log))) {
  // Not from inside the constructor: the first attempt asks for the headers.
  state_->wait = loop.after(Duration(0), [state = state_.get()] {
    const auto self = state->shared_from_this();
    state->attempt();
  });
}

ReconnectingClient::~ReconnectingClient() {
  state_->ended = true;
  state_->wait.reset();
  state_->client.reset();
}

bool ReconnectingClient::connected() const { return state_->opened; }

bool ReconnectingClient::send(std::string text) {
  if (!state_->opened) return false;
  const auto session = state_->client->session();
  return session && session->send(std::move(text));
}

void ReconnectingClient::set_settings(ReconnectSettings settings) { state_->apply(std::move(settings)); }

void ReconnectingClient::stop(uint16_t code, std::string_view reason) {
  state_->stopped = true;
  state_->wait.reset();
  if (!state_->opened) {
    state_->client.reset();
    return;
  }
  if (const auto session = state_->client->session()) session->close(code, reason);
}

}  // namespace pitcrew::net
