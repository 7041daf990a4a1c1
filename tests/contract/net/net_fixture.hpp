#pragma once

#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/net/asio_loop.hpp"
#include "lib/net/tls.hpp"
#include "lib/net/websocket_client.hpp"
#include "lib/net/websocket_server.hpp"
#include "tests/contract/net/tcp_gate.hpp"

namespace pitcrew::net::testing {

// Nothing is measured against it: only a test that hangs meets it.
inline constexpr Duration kCap = seconds(60);
inline const Address kLoopback{"127.0.0.1", 0};
inline constexpr char kServerName[] = "channel.pitcrew.test";
inline constexpr uint64_t kSeed = 20260301;

// A root made once for all tests of the program; making keys is what takes time under sanitizers.
const CertificateAuthority& authority();
// For kServerName and 127.0.0.1, from an hour ago for a day.
const TlsServerIdentity& server_identity();
TlsTrust trust();

// A WebSocket server that writes down what happens to it.
struct ChannelServer {
  std::vector<std::string> opened;  // paths
  std::vector<std::string> messages;
  std::vector<WebSocketClose> closes;
  std::vector<WebSocketSessionPtr> sessions;
  bool echo = false;
  std::unique_ptr<WebSocketServer> server;

  // Settings with TLS on the loopback and limits that suit tests.
  static WebSocketServerSettings settings();
  void listen(AsioLoop& loop, WebSocketServerSettings with = settings(), WebSocketServerHandler handler = {});
};

// A WebSocket client that does so.
struct ChannelClient {
  bool open = false;
  std::vector<std::string> messages;
  std::optional<WebSocketClose> close;
  WebSocketSessionPtr session;
  std::unique_ptr<WebSocketClient> client;

  static WebSocketClientSettings settings(const Address& address);
  void connect(AsioLoop& loop, WebSocketClientSettings with);
};

class NetTest : public ::testing::Test {
 protected:
  AsioLoop loop;

  // Runs the loop until the condition holds.
  ::testing::AssertionResult eventually(const std::function<bool()>& condition) {
    if (loop.run_until(condition, kCap)) return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << "not within " << to_string(kCap);
  }
};

}  // namespace pitcrew::net::testing
