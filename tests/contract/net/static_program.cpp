// What the launcher does with lib/net, in a program that is linked statically: a WebSocket over TLS, and a stream under
// a pre-shared key. Prints what memory it took; fails above the launcher's limit.

#include <cstdio>
#include <fstream>
#include <optional>
#include <string>

#include "lib/net/crypto.hpp"
#include "lib/net/psk.hpp"
#include "lib/net/reconnecting_client.hpp"
#include "lib/net/websocket_server.hpp"

using namespace pitcrew;
using namespace pitcrew::net;

namespace {

constexpr size_t kLimitKilobytes = 15'000;  // the launcher's RssAnon (DESIGN.md, numbers to hold)

size_t anonymous_kilobytes() {
  std::ifstream file("/proc/self/status");
  std::string word;
  size_t kilobytes = 0;
  while (file >> word) {
    if (word == "RssAnon:" && file >> kilobytes) return kilobytes;
  }
  return 0;
}

int fail(const std::string& why) {
  std::fprintf(stderr, "%s\n", why.c_str());
  return 1;
}

}  // namespace

int main() {
  AsioLoop loop;
  const auto authority = CertificateAuthority::create("root", {loop.now() - hours(1), loop.now() + hours(1)});
  if (!authority) return fail(authority.error().message);
  const auto identity = authority->issue({{"channel"}, {}}, {loop.now() - hours(1), loop.now() + hours(1)});
  if (!identity) return fail(identity.error().message);

  std::string at_server;
  WebSocketServerSettings channel;
  channel.address = {"127.0.0.1", 0};
  channel.identity = *identity;
  WebSocketServerHandler handler;
  handler.on_message = [&](const WebSocketSessionPtr&, std::string text) { at_server = std::move(text); };
  const auto server = WebSocketServer::listen(loop, channel, std::move(handler));
  if (!server) return fail(server.error().message);

  ReconnectSettings settings;
  settings.addresses = {(*server)->address()};
  settings.trust = TlsTrust{authority->certificate_pem(), "channel"};
  ReconnectingClient client(loop, settings, {}, Random(1));
  if (!loop.run_until([&] { return client.connected(); }, seconds(30))) return fail("no session");
  client.send("hello");
  if (!loop.run_until([&] { return at_server == "hello"; }, seconds(30))) return fail("no message");

  const PskKey key{"epoch", hmac_sha256("secret", "epoch")};
  PskConnection::Ptr accepted;
  const auto peers =
      PskServer::listen(loop, {{"127.0.0.1", 0}}, {key}, [&](PskConnection::Ptr c) { accepted = std::move(c); });
  if (!peers) return fail(peers.error().message);
  std::optional<Status> connected;
  const auto peer =
      PskConnection::connect(loop, (*peers)->address(), key, {}, [&](Status status) { connected = status; });
  if (!loop.run_until([&] { return connected && accepted; }, seconds(30)) || !*connected) return fail("no peer");
  std::optional<std::string> got;
  accepted->read([&](Result<std::string> message) { got = message.value_or(""); });
  peer->send("file");
  if (!loop.run_until([&] { return got == "file"; }, seconds(30))) return fail("no message from the peer");

  const size_t kilobytes = anonymous_kilobytes();
  std::printf("RssAnon %zu kB\n", kilobytes);
  return kilobytes < kLimitKilobytes ? 0 : fail("above " + std::to_string(kLimitKilobytes) + " kB");
}
