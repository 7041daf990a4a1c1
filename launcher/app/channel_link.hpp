#pragma once

#include <functional>
#include <memory>
#include <string>

#include "lib/api/channel.hpp"
#include "lib/base/log.hpp"
#include "lib/net/reconnecting_client.hpp"

namespace pitcrew::launcher {

// The control channel as the launcher has it: where the operator is and whom to believe are read from channel.json
// again before connections and every few seconds, the token at every attempt, so that addresses, roots and tokens
// change under a running pod. On the loop.
class ChannelLink {
 public:
  struct Settings {
    std::string channel_file;
    std::string token_file;
    Duration look_every = seconds(5);  // at channel.json
  };
  struct Handler {
    std::function<void()> on_open;  // hello goes first
    std::function<void(api::channel::ToLauncher message)> on_message;
    std::function<void(const std::string& reason)> on_close;
  };

  ChannelLink(net::AsioLoop& loop, Settings settings, Handler handler, uint64_t seed, Logger log);

  bool connected() const { return client_ && client_->connected(); }
  // False, and nothing is kept, where there is no connection or the message is too large.
  bool send(const api::channel::FromLauncher& message);
  // Closes in order; `closed` when that is done.
  void close(std::function<void()> closed);
  uint64_t attempts_failed() const { return failed_; }

 private:
  void look();

  net::AsioLoop& loop_;
  Settings settings_;
  Handler handler_;
  Logger log_;
  std::string config_text_;
  std::unique_ptr<net::ReconnectingClient> client_;
  Random random_;
  std::function<void()> closed_;
  Loop::TimerPtr timer_;
  std::string last_failure_;
  uint64_t failed_ = 0;
};

}  // namespace pitcrew::launcher
