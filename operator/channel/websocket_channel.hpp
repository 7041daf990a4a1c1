#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "lib/base/log.hpp"
#include "lib/net/websocket_server.hpp"
#include "operator/channel/channel_server.hpp"

namespace pitcrew::control {

struct WebSocketChannelSettings {
  net::Address address{"127.0.0.1", 0};
  net::TlsServerIdentity identity = {};
  std::string ca_bundle = {};                   // what launchers believe: PEM, old and new root
  std::string server_name = "pitcrew-channel";  // a name that the identity carries
  std::vector<std::string> advertised = {};     // where launchers connect to; empty: the address that was bound
  size_t max_connections = 20'000;
};

// The control channel over WebSocket and TLS, on lib/net. Path and token are looked at before the upgrade; what the
// token is worth is the hub's to find out. Lives on the loop; the listener is open from create() to stop() or
// destruction.
class WebSocketChannelServer final : public ChannelServer {
 public:
  static Result<std::unique_ptr<WebSocketChannelServer>> create(net::AsioLoop& loop, WebSocketChannelSettings settings,
                                                                Logger log = {});
  ~WebSocketChannelServer() override;

  void start(ChannelHandler& handler) override;
  void stop() override;
  api::channel::Config config() const override { return config_; }
  // A rotated certificate, and the bundle that vouches for it and its successor.
  Status set_identity(const net::TlsServerIdentity& identity, const std::string& ca_bundle);
  // Where launchers connect to from now on.
  void set_advertised(std::vector<std::string> addresses);
  net::Address address() const { return address_; }

 private:
  class Session;
  explicit WebSocketChannelServer(WebSocketChannelSettings settings, Logger log);
  void asked(const net::WebSocketRequest& request, net::WebSocketAdmissionPtr admission);
  void opened(const net::WebSocketSessionPtr& session);
  void received(const net::WebSocketSessionPtr& session, const std::string& text);
  void closed(const net::WebSocketSessionPtr& session, const net::WebSocketClose& close);

  WebSocketChannelSettings settings_;
  Logger log_;
  api::channel::Config config_;
  net::Address address_;
  ChannelHandler* handler_ = nullptr;
  std::map<uint64_t, std::shared_ptr<Session>> sessions_;  // by the WebSocket session's id
  std::unique_ptr<net::WebSocketServer> server_;
};

}  // namespace pitcrew::control
