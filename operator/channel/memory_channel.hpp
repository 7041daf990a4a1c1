#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "lib/base/loop.hpp"
#include "operator/channel/channel_server.hpp"

namespace pitcrew::control {

// A channel in memory, for tests and for the simulation: messages arrive after `latency` on the loop, in order; a cut
// connection delivers nothing more and tells nobody, as a lost node does, until pings go unanswered. Deterministic.
// Lives on the loop.
class MemoryChannelServer final : public ChannelServer {
 public:
  static constexpr Duration kPingTimeout = seconds(5);

  // The launcher's end of one connection. Destroying it closes the connection as a process's death does (the operator's
  // end hears `closed` after the latency).
  class Connection {
   public:
    struct Callbacks {
      std::function<void(std::string message)> received;
      std::function<void(CloseCode code, std::string reason)> closed;
    };
    ~Connection();
    void send(std::string message);
    void close();
    // From now on nothing passes in either direction; each end finds out when a ping has stayed unanswered for
    // kPingTimeout.
    void cut();
    bool open() const;

   private:
    friend class MemoryChannelServer;
    struct State;
    explicit Connection(std::shared_ptr<State> state);
    std::shared_ptr<State> state_;
  };

  MemoryChannelServer(Loop& loop, api::channel::Config config, Duration latency = milliseconds(1));
  ~MemoryChannelServer() override;

  void start(ChannelHandler& handler) override;
  void stop() override;
  api::channel::Config config() const override { return config_; }
  void set_config(api::channel::Config config);

  // Null where the server is not started: connection refused.
  std::unique_ptr<Connection> connect(std::string token, std::string peer, Connection::Callbacks callbacks);

 private:
  class Session;
  Loop& loop_;
  api::channel::Config config_;
  Duration latency_;
  ChannelHandler* handler_ = nullptr;
  uint64_t next_ = 0;
  std::map<uint64_t, std::weak_ptr<Connection::State>> connections_;
};

}  // namespace pitcrew::control
