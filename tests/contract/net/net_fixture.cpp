#include "tests/contract/net/net_fixture.hpp"

namespace pitcrew::net::testing {

const CertificateAuthority& authority() {
  static const CertificateAuthority made =
      *CertificateAuthority::create("pitcrew test root", {RealClock().now() - hours(1), RealClock().now() + hours(24)});
  return made;
}

const TlsServerIdentity& server_identity() {
  static const TlsServerIdentity made =
      *authority().issue({{kServerName}, {"127.0.0.1"}}, {RealClock().now() - hours(1), RealClock().now() + hours(24)});
  return made;
}

TlsTrust trust() { return {authority().certificate_pem(), kServerName}; }

WebSocketServerSettings ChannelServer::settings() {
  WebSocketServerSettings settings;
  settings.address = kLoopback;
  settings.identity = server_identity();
  // A busy machine under sanitizers is slow; tests of a limit set their own.
  settings.handshake_timeout = seconds(60);
  settings.ping_timeout = seconds(60);
  return settings;
}

void ChannelServer::listen(AsioLoop& loop, WebSocketServerSettings with, WebSocketServerHandler handler) {
  handler.on_open = [this](const WebSocketSessionPtr& session) { sessions.push_back(session); };
  handler.on_message = [this](const WebSocketSessionPtr& session, std::string text) {
    if (echo) session->send(text);
    messages.push_back(std::move(text));
  };
  handler.on_close = [this](const WebSocketSessionPtr&, const WebSocketClose& close) { closes.push_back(close); };
  auto made = WebSocketServer::listen(loop, std::move(with), std::move(handler));
  ASSERT_TRUE(made.ok()) << made.error().message;
  server = *std::move(made);
}

WebSocketClientSettings ChannelClient::settings(const Address& address) {
  WebSocketClientSettings settings;
  settings.address = address;
  settings.trust = trust();
  settings.path = "/v1/launchers";
  settings.connect_timeout = seconds(60);
  settings.ping_timeout = seconds(60);
  return settings;
}

void ChannelClient::connect(AsioLoop& loop, WebSocketClientSettings with) {
  WebSocketClientHandler handler;
  handler.on_open = [this](const WebSocketSessionPtr& opened) {
    open = true;
    session = opened;
  };
  handler.on_message = [this](std::string text) { messages.push_back(std::move(text)); };
  handler.on_close = [this](const WebSocketClose& closed) {
    EXPECT_FALSE(close) << "on_close came twice";
    open = false;
    close = closed;
  };
  client = WebSocketClient::connect(loop, std::move(with), std::move(handler));
}

}  // namespace pitcrew::net::testing
