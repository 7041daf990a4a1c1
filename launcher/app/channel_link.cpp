#include "launcher/app/channel_link.hpp"

#include "launcher/supervise/proc.hpp"

namespace pitcrew::launcher {
namespace {

constexpr size_t kMostQueued = 512 * 1024;

// A token file may end in a line feed; a header may not hold one.
std::string first_word(std::string text) {
  text.resize(std::min(text.find_first_of(" \t\r\n"), text.size()));
  return text;
}

}  // namespace

ChannelLink::ChannelLink(net::AsioLoop& loop, Settings settings, Handler handler, uint64_t seed, Logger log)
    : loop_(loop), settings_(std::move(settings)), handler_(std::move(handler)), log_(std::move(log)), random_(seed) {
  look();
}

void ChannelLink::look() {
  timer_ = loop_.after(client_ ? settings_.look_every : std::min<Duration>(settings_.look_every, seconds(1)),
                       [this] { look(); });
  const std::string text = read_proc(settings_.channel_file);
  if (text == config_text_) return;
  const auto config = api::channel::decode_config(text);
  if (!config) {
    if (last_failure_ != config.error().message) {
      last_failure_ = config.error().message;
      log_.warning("channel.json can't be used; looking again",
                   {{"file", settings_.channel_file}, {"error", last_failure_}});
    }
    return;
  }
  net::ReconnectSettings next;
  for (const std::string& address : config->addresses) {
    if (auto parsed = net::Address::parse(address)) {
      next.addresses.push_back(*parsed);
    } else {
      log_.warning("channel.json names an address that can't be used", {{"error", parsed.error().message}});
    }
  }
  next.trust = net::TlsTrust{config->ca_bundle, config->server_name};
  if (const Status good = net::check(*next.trust); !good) {
    log_.warning("channel.json's certificates can't be used; looking again", {{"error", good.error().message}});
    return;
  }
  config_text_ = text;
  next.path = api::channel::kPath;
  next.max_message_bytes = api::channel::kMaxToLauncher;
  next.max_queue_bytes = kMostQueued;
  next.headers = [file = settings_.token_file] {
    return net::Headers{{"Authorization", "Bearer " + first_word(read_proc(file))}};
  };
  if (client_) {
    client_->set_settings(std::move(next));
    return;
  }
  net::ReconnectHandler handler;
  handler.on_open = [this](const net::Address& address) {
    last_failure_.clear();
    log_.info("connected to the operator", {{"address", net::to_string(address)}});
    handler_.on_open();
  };
  handler.on_message = [this](std::string message) {
    auto decoded = api::channel::decode_to_launcher(message);
    if (!decoded) {
      log_.warning("a message of the operator can't be read", {{"error", decoded.error().message}});
      return;
    }
    handler_.on_message(*std::move(decoded));
  };
  handler.on_close = [this](const net::WebSocketClose& close) {
    log_.info("the channel has closed", {{"code", close.code}, {"reason", close.reason}});
    if (closed_) return std::exchange(closed_, {})();
    handler_.on_close(close.reason);
    look();
  };
  handler.on_failed_attempt = [this](const net::Address& address, const net::WebSocketClose& close) {
    ++failed_;
    // Said once, not at every attempt: an operator may be away for hours.
    const std::string failure = net::to_string(address) + ": " + close.reason;
    if (failure != last_failure_) {
      last_failure_ = failure;
      log_.warning("the operator can't be reached; trying on",
                   {{"address", net::to_string(address)}, {"reason", close.reason}});
    }
    look();
  };
  client_ =
      std::make_unique<net::ReconnectingClient>(loop_, std::move(next), std::move(handler), random_.split(), log_);
}

bool ChannelLink::send(const api::channel::FromLauncher& message) {
  if (!connected()) return false;
  std::string text = api::channel::encode(message);
  if (text.size() > api::channel::kMaxFromLauncher) {
    log_.error("a message is too long for the channel and is not sent", {{"bytes", text.size()}});
    return false;
  }
  return client_->send(std::move(text));
}

void ChannelLink::close(std::function<void()> closed) {
  timer_.reset();
  if (!connected()) {
    loop_.post(std::move(closed));
    return;
  }
  closed_ = std::move(closed);
  client_->stop(net::close_code::kNormal, "the launcher ends");
}

}  // namespace pitcrew::launcher
