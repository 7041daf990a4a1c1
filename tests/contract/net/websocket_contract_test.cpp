#include <optional>

#include <gmock/gmock.h>

#include "lib/net/psk.hpp"
#include "lib/net/reconnecting_client.hpp"
#include "tests/contract/net/net_fixture.hpp"

namespace pitcrew::net::testing {
namespace {

using Direction = TcpGate::Direction;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class WebSocketContract : public NetTest {
 protected:
  ChannelServer server;
  ChannelClient client;

  ChannelClient& connected(WebSocketClientSettings settings) {
    client.connect(loop, std::move(settings));
    EXPECT_TRUE(eventually([&] { return client.open && !server.sessions.empty(); }))
        << (client.close ? client.close->reason : "");
    return client;
  }
  std::string refusal_of(WebSocketClientSettings settings) {
    client.connect(loop, std::move(settings));
    EXPECT_TRUE(eventually([&] { return client.close.has_value(); }));
    EXPECT_FALSE(client.session);
    return client.close ? client.close->reason : "";
  }
};

TEST_F(WebSocketContract, messages_go_both_ways_in_order) {
  server.listen(loop);
  connected(ChannelClient::settings(server.server->address()));
  for (const char* text : {"one", "two", "three"}) EXPECT_TRUE(client.session->send(text));
  EXPECT_TRUE(server.sessions[0]->send("four"));
  EXPECT_TRUE(server.sessions[0]->send("fünf"));
  ASSERT_TRUE(eventually([&] { return server.messages.size() == 3 && client.messages.size() == 2; }));
  EXPECT_THAT(server.messages, ElementsAre("one", "two", "three"));
  EXPECT_THAT(client.messages, ElementsAre("four", "fünf"));
}

TEST_F(WebSocketContract, the_handler_sees_the_path_and_the_authorization_and_gives_the_session_a_context) {
  WebSocketServerHandler handler;
  std::optional<WebSocketRequest> seen;
  handler.on_request = [&](const WebSocketRequest& request, WebSocketAdmissionPtr admission) {
    seen = request;
    admission->accept(std::string("pod-7"));
  };
  server.listen(loop, ChannelServer::settings(), std::move(handler));
  auto settings = ChannelClient::settings(server.server->address());
  settings.headers = {{"Authorization", "Bearer abc"}};
  connected(settings);
  EXPECT_EQ(seen->path, "/v1/launchers");
  ASSERT_NE(find_header(seen->headers, "authorization"), nullptr);
  EXPECT_EQ(*find_header(seen->headers, "authorization"), "Bearer abc");
  EXPECT_EQ(seen->peer.host, "127.0.0.1");
  EXPECT_EQ(std::any_cast<std::string>(server.sessions[0]->context()), "pod-7");
}

TEST_F(WebSocketContract, a_request_can_be_refused_before_the_upgrade) {
  WebSocketServerHandler handler;
  handler.on_request = [](const WebSocketRequest&, WebSocketAdmissionPtr admission) {
    admission->refuse(401, "the token is for another pod");
  };
  server.listen(loop, ChannelServer::settings(), std::move(handler));
  const std::string reason = refusal_of(ChannelClient::settings(server.server->address()));
  EXPECT_THAT(reason, StartsWith("refused with 401: the token is for another pod"));
  EXPECT_TRUE(server.closes.empty());
}

TEST_F(WebSocketContract, a_request_can_be_answered_later) {
  WebSocketServerHandler handler;
  WebSocketAdmissionPtr waiting;
  handler.on_request = [&](const WebSocketRequest&, WebSocketAdmissionPtr admission) {
    waiting = std::move(admission);
  };
  server.listen(loop, ChannelServer::settings(), std::move(handler));
  client.connect(loop, ChannelClient::settings(server.server->address()));
  ASSERT_TRUE(eventually([&] { return waiting != nullptr; }));
  EXPECT_FALSE(client.open);
  waiting->accept();
  EXPECT_TRUE(eventually([&] { return client.open; }));
}

TEST_F(WebSocketContract, an_admission_that_is_dropped_or_too_slow_is_answered_with_503) {
  for (const bool dropped : {true, false}) {
    WebSocketServerHandler handler;
    WebSocketAdmissionPtr waiting;
    handler.on_request = [&](const WebSocketRequest&, WebSocketAdmissionPtr admission) {
      if (!dropped) waiting = std::move(admission);
    };
    ChannelServer with;
    auto settings = ChannelServer::settings();
    settings.admission_timeout = milliseconds(50);
    with.listen(loop, settings, std::move(handler));
    client = {};
    EXPECT_THAT(refusal_of(ChannelClient::settings(with.server->address())), StartsWith("refused with 503")) << dropped;
  }
}

TEST_F(WebSocketContract, a_certificate_of_another_root_is_refused) {
  server.listen(loop);
  const auto other = CertificateAuthority::create("other root", {loop.now() - hours(1), loop.now() + hours(1)});
  auto settings = ChannelClient::settings(server.server->address());
  settings.trust->ca_bundle_pem = other->certificate_pem();
  EXPECT_THAT(refusal_of(settings), HasSubstr("certificate refused"));
  EXPECT_TRUE(server.sessions.empty());
}

TEST_F(WebSocketContract, a_bundle_of_an_old_and_a_new_root_accepts_both) {
  server.listen(loop);
  const auto other = CertificateAuthority::create("new root", {loop.now() - hours(1), loop.now() + hours(1)});
  const auto renewed = other->issue({{kServerName}, {}}, {loop.now() - hours(1), loop.now() + hours(1)});
  auto settings = ChannelClient::settings(server.server->address());
  settings.trust->ca_bundle_pem = other->certificate_pem() + authority().certificate_pem();
  connected(settings);
  ASSERT_TRUE(server.server->set_identity(*renewed).ok());
  ChannelClient second;
  second.connect(loop, settings);
  EXPECT_TRUE(eventually([&] { return second.open; }));
  EXPECT_TRUE(client.open) << "a session that stands is not touched by a reload";
  ChannelClient old;
  old.connect(loop, ChannelClient::settings(server.server->address()));
  EXPECT_TRUE(eventually([&] { return old.close.has_value(); }));
  EXPECT_THAT(old.close->reason, HasSubstr("certificate refused"));
}

TEST_F(WebSocketContract, an_identity_that_is_wrong_is_refused_and_the_old_one_stays) {
  server.listen(loop);
  EXPECT_FALSE(server.server->set_identity({server_identity().certificate_pem, authority().key_pem()}).ok());
  connected(ChannelClient::settings(server.server->address()));
}

TEST_F(WebSocketContract, another_server_name_is_refused) {
  server.listen(loop);
  auto settings = ChannelClient::settings(server.server->address());
  settings.trust->server_name = "other.pitcrew.test";
  EXPECT_THAT(refusal_of(settings), HasSubstr("ostname mismatch"));
}

TEST_F(WebSocketContract, an_ip_address_can_be_the_server_name) {
  server.listen(loop);
  auto settings = ChannelClient::settings(server.server->address());
  settings.trust->server_name = "127.0.0.1";
  connected(settings);
}

TEST_F(WebSocketContract, a_certificate_outside_its_time_is_refused) {
  for (const auto& [from, until] : {std::pair{-hours(2), -hours(1)}, std::pair{hours(1), hours(2)}}) {
    ChannelServer with;
    auto settings = ChannelServer::settings();
    settings.identity = *authority().issue({{kServerName}, {}}, {loop.now() + from, loop.now() + until});
    with.listen(loop, settings);
    client = {};
    const std::string reason = refusal_of(ChannelClient::settings(with.server->address()));
    EXPECT_THAT(reason, HasSubstr(until < hours(0) ? "expired" : "not yet valid"));
  }
}

TEST_F(WebSocketContract, a_handshake_that_is_too_slow_is_closed) {
  auto settings = ChannelServer::settings();
  settings.handshake_timeout = milliseconds(200);
  server.listen(loop, settings);
  TcpGate gate(loop, server.server->address(), Random(kSeed));
  gate.stop(Direction::kToServer, true);
  // The server's end of file comes through the gate: the client learns of it long before its own limit.
  const std::string reason = refusal_of(ChannelClient::settings(gate.address()));
  EXPECT_THAT(reason, HasSubstr("cut by the peer")) << "the client's own limit did not end it";
}

TEST_F(WebSocketContract, a_connect_that_nobody_answers_ends_at_its_limit) {
  server.listen(loop);
  TcpGate gate(loop, server.server->address(), Random(kSeed));
  gate.stop_both(true);
  auto settings = ChannelClient::settings(gate.address());
  settings.connect_timeout = milliseconds(200);
  EXPECT_THAT(refusal_of(settings), HasSubstr("no answer in 200ms"));
}

TEST_F(WebSocketContract, both_ends_close_when_the_other_is_silent) {
  auto settings = ChannelServer::settings();
  settings.ping_timeout = seconds(2);
  server.listen(loop, settings);
  TcpGate gate(loop, server.server->address(), Random(kSeed));
  auto with = ChannelClient::settings(gate.address());
  with.ping_timeout = seconds(2);
  connected(with);
  gate.stop_both(true);  // no FIN, no RST: a node without power
  ASSERT_TRUE(eventually([&] { return client.close && !server.closes.empty(); }));
  EXPECT_THAT(client.close->reason, HasSubstr("silent for 2s"));
  EXPECT_THAT(server.closes[0].reason, HasSubstr("silent for 2s"));
}

TEST_F(WebSocketContract, pings_keep_a_quiet_session_open) {
  auto settings = ChannelServer::settings();
  settings.ping_timeout = seconds(4);
  server.listen(loop, settings);
  auto with = ChannelClient::settings(server.server->address());
  with.ping_timeout = seconds(4);
  connected(with);
  const Instant end = loop.now() + seconds(6);
  loop.run_until([&] { return loop.now() >= end || client.close; }, kCap);
  EXPECT_TRUE(client.open) << client.close->reason;
}

TEST_F(WebSocketContract, a_message_that_is_too_big_closes_the_session) {
  auto settings = ChannelServer::settings();
  settings.max_message_bytes = 1000;
  server.listen(loop, settings);
  connected(ChannelClient::settings(server.server->address()));
  client.session->send(std::string(1000, 'x'));
  client.session->send(std::string(1001, 'y'));
  ASSERT_TRUE(eventually([&] { return client.close && !server.closes.empty(); }));
  EXPECT_EQ(server.messages.size(), 1u);
  EXPECT_EQ(server.closes[0].code, close_code::kTooBig);
  EXPECT_EQ(client.close->code, close_code::kTooBig);
}

TEST_F(WebSocketContract, a_full_send_queue_cuts_the_session_and_says_so) {
  auto settings = ChannelServer::settings();
  settings.max_queue_bytes = 256 * 1024;
  server.listen(loop, settings);
  TcpGate gate(loop, server.server->address(), Random(kSeed));
  connected(ChannelClient::settings(gate.address()));
  gate.stop_both(true);
  const WebSocketSessionPtr session = server.sessions[0];
  int sent = 0;
  while (session->send(std::string(64 * 1024, 'x'))) {
    ASSERT_LT(++sent, 1000);
    loop.run_until([] { return false; }, milliseconds(1));
  }
  ASSERT_TRUE(eventually([&] { return !server.closes.empty(); }));
  EXPECT_THAT(server.closes[0].reason, HasSubstr("send queue full"));
  EXPECT_FALSE(session->send("more"));
}

TEST_F(WebSocketContract, a_close_tells_the_other_end_its_code_and_reason_after_all_messages) {
  server.listen(loop);
  connected(ChannelClient::settings(server.server->address()));
  server.sessions[0]->send("last words");
  server.sessions[0]->close(close_code::kTryAgainLater, "not leader");
  ASSERT_TRUE(eventually([&] { return client.close && !server.closes.empty(); }));
  EXPECT_THAT(client.messages, ElementsAre("last words"));
  EXPECT_EQ(client.close->code, close_code::kTryAgainLater);
  EXPECT_EQ(client.close->reason, "not leader");
  EXPECT_EQ(server.server->sessions(), 0u);
}

TEST_F(WebSocketContract, a_close_that_is_not_answered_ends_at_the_handshake_limit) {
  auto settings = ChannelServer::settings();
  settings.handshake_timeout = seconds(3);
  server.listen(loop, settings);
  TcpGate gate(loop, server.server->address(), Random(kSeed));
  connected(ChannelClient::settings(gate.address()));
  gate.stop_both(true);
  server.sessions[0]->close(close_code::kGoingAway, "bye");
  EXPECT_TRUE(eventually([&] { return !server.closes.empty(); }));
}

TEST_F(WebSocketContract, sliced_and_delayed_bytes_arrive_whole) {
  server.listen(loop);
  server.echo = true;
  TcpGate gate(loop, server.server->address(), Random(kSeed));
  gate.slice(7);
  gate.delay(milliseconds(1));
  connected(ChannelClient::settings(gate.address()));
  const std::string text(5000, 'z');
  client.session->send(text);
  ASSERT_TRUE(eventually([&] { return !client.messages.empty(); }));
  EXPECT_EQ(client.messages[0], text);
}

TEST_F(WebSocketContract, corrupted_bytes_end_the_session_and_are_never_delivered) {
  for (const Direction direction : {Direction::kToServer, Direction::kToClient}) {
    ChannelServer with;
    with.listen(loop);
    TcpGate gate(loop, with.server->address(), Random(kSeed));
    ChannelClient other;
    other.connect(loop, ChannelClient::settings(gate.address()));
    ASSERT_TRUE(eventually([&] { return other.open && !with.sessions.empty(); }));
    gate.corrupt_next(direction);
    if (direction == Direction::kToServer) {
      other.session->send("text");
    } else {
      with.sessions[0]->send("text");
    }
    ASSERT_TRUE(eventually([&] { return other.close && !with.closes.empty(); }));
    EXPECT_TRUE(with.messages.empty());
    EXPECT_TRUE(other.messages.empty());
  }
}

TEST_F(WebSocketContract, a_reset_and_a_half_close_end_both_ends) {
  for (const int kind : {0, 1, 2}) {
    ChannelServer with;
    with.listen(loop);
    TcpGate gate(loop, with.server->address(), Random(kSeed));
    ChannelClient other;
    other.connect(loop, ChannelClient::settings(gate.address()));
    ASSERT_TRUE(eventually([&] { return other.open && !with.sessions.empty(); }));
    if (kind == 0) gate.cut();
    if (kind == 1) gate.half_close(Direction::kToServer);
    if (kind == 2) gate.half_close(Direction::kToClient);
    EXPECT_TRUE(eventually([&] { return other.close && !with.closes.empty(); })) << kind;
    EXPECT_EQ(with.closes[0].code, close_code::kAbnormal);
  }
}

TEST_F(WebSocketContract, a_connection_cut_at_any_byte_of_its_beginning_ends_with_a_reason) {
  server.listen(loop);
  for (uint64_t bytes = 1; bytes < 1200; bytes += 61) {
    TcpGate gate(loop, server.server->address(), Random(kSeed));
    gate.slice(16);
    gate.cut_after(bytes % 2 == 0 ? Direction::kToServer : Direction::kToClient, bytes);
    ChannelClient other;
    other.connect(loop, ChannelClient::settings(gate.address()));
    ASSERT_TRUE(eventually([&] { return other.close || other.open; })) << bytes;
    EXPECT_TRUE(other.open || !other.close->reason.empty()) << bytes;
  }
}

TEST_F(WebSocketContract, connections_above_the_limit_are_refused_and_counted) {
  auto settings = ChannelServer::settings();
  settings.max_connections = 1;
  server.listen(loop, settings);
  connected(ChannelClient::settings(server.server->address()));
  ChannelClient second;
  second.connect(loop, ChannelClient::settings(server.server->address()));
  ASSERT_TRUE(eventually([&] { return second.close.has_value(); }));
  EXPECT_EQ(server.server->refused_connections(), 1u);
  client.client.reset();
  ASSERT_TRUE(eventually([&] { return !server.closes.empty(); }));
  ChannelClient third;
  third.connect(loop, ChannelClient::settings(server.server->address()));
  EXPECT_TRUE(eventually([&] { return third.open; }));
}

TEST_F(WebSocketContract, a_client_may_be_destroyed_by_its_own_functions) {
  server.listen(loop);
  for (const bool at_open : {true, false}) {
    std::unique_ptr<WebSocketClient> gone;
    bool called = false;
    WebSocketClientHandler handler;
    handler.on_open = [&](const WebSocketSessionPtr&) {
      if (!at_open) return;
      called = true;
      gone.reset();
    };
    handler.on_close = [&](const WebSocketClose&) {
      called = true;
      gone.reset();
    };
    gone = WebSocketClient::connect(loop, ChannelClient::settings(server.server->address()), std::move(handler));
    if (!at_open) {
      ASSERT_TRUE(eventually([&] { return server.server->sessions() == 1; }));
      server.server->close_all(close_code::kNormal, "");
    }
    EXPECT_TRUE(eventually([&] { return called; }));
    EXPECT_TRUE(eventually([&] { return server.server->sessions() == 0; }));
  }
}

TEST_F(WebSocketContract, a_server_that_goes_leaves_clients_that_know_it) {
  server.listen(loop);
  connected(ChannelClient::settings(server.server->address()));
  server.server.reset();
  ASSERT_TRUE(eventually([&] { return client.close.has_value(); }));
  EXPECT_TRUE(server.closes.empty());
}

class Reconnecting : public WebSocketContract {
 protected:
  static ReconnectSettings settings(std::vector<Address> addresses) {
    ReconnectSettings settings;
    settings.addresses = std::move(addresses);
    settings.trust = trust();
    settings.path = "/v1/launchers";
    settings.connect_timeout = seconds(60);
    settings.ping_timeout = seconds(60);
    settings.shortest_delay = milliseconds(5);
    settings.longest_delay = milliseconds(100);
    return settings;
  }
};

TEST_F(Reconnecting, another_address_is_tried_and_the_token_is_asked_for_at_every_attempt) {
  server.listen(loop);
  int asked = 0;
  std::vector<Address> failed;
  auto with = settings({{"127.0.0.1", 1}, server.server->address()});
  with.headers = [&] { return Headers{{"Authorization", "Bearer " + std::to_string(++asked)}}; };
  ReconnectHandler handler;
  handler.on_failed_attempt = [&](const Address& address, const WebSocketClose&) { failed.push_back(address); };
  ReconnectingClient reconnecting(loop, with, std::move(handler), Random(kSeed));
  ASSERT_TRUE(eventually([&] { return reconnecting.connected(); }));
  EXPECT_THAT(failed, ElementsAre(Address{"127.0.0.1", 1}));
  EXPECT_EQ(asked, 2);
  EXPECT_TRUE(reconnecting.send("hello"));
  EXPECT_TRUE(eventually([&] { return server.messages.size() == 1; }));
}

TEST_F(Reconnecting, changed_settings_move_an_open_session_to_the_new_address) {
  server.listen(loop);
  ChannelServer second;
  second.listen(loop);
  ReconnectingClient reconnecting(loop, settings({server.server->address()}), {}, Random(kSeed));
  ASSERT_TRUE(eventually([&] { return server.server->sessions() == 1; }));
  reconnecting.set_settings(settings({second.server->address()}));
  EXPECT_TRUE(eventually([&] { return second.server->sessions() == 1 && server.server->sessions() == 0; }));
}

TEST_F(Reconnecting, settings_without_an_address_wait_for_some) {
  server.listen(loop);
  ReconnectingClient reconnecting(loop, settings({}), {}, Random(kSeed));
  loop.run_until([] { return false; }, milliseconds(50));
  EXPECT_FALSE(reconnecting.connected());
  reconnecting.set_settings(settings({server.server->address()}));
  EXPECT_TRUE(eventually([&] { return reconnecting.connected(); }));
}

TEST_F(Reconnecting, a_stopped_client_does_not_come_back) {
  server.listen(loop);
  std::optional<WebSocketClose> closed;
  ReconnectHandler handler;
  handler.on_close = [&](const WebSocketClose& close) { closed = close; };
  ReconnectingClient reconnecting(loop, settings({server.server->address()}), std::move(handler), Random(kSeed));
  ASSERT_TRUE(eventually([&] { return reconnecting.connected() && server.server->sessions() == 1; }));
  reconnecting.stop(close_code::kNormal, "done");
  ASSERT_TRUE(eventually([&] { return closed && server.closes.size() == 1; }));
  EXPECT_EQ(server.closes[0].reason, "done");
  loop.run_until([] { return false; }, milliseconds(300));
  EXPECT_EQ(server.sessions.size(), 1u);
}

TEST_F(Reconnecting, a_herd_of_200_clients_comes_back_after_a_cut) {
  constexpr size_t kClients = 200;
  server.listen(loop);
  TcpGate gate(loop, server.server->address(), Random(kSeed));
  auto each = settings({gate.address()});
  each.longest_delay = seconds(1);
  std::vector<std::unique_ptr<ReconnectingClient>> herd;
  Random random(kSeed);
  for (size_t i = 0; i < kClients; ++i) {
    herd.push_back(std::make_unique<ReconnectingClient>(loop, each, ReconnectHandler{}, random.split()));
  }
  for (int round = 0; round < 2; ++round) {
    ASSERT_TRUE(loop.run_until([&] { return server.server->sessions() == kClients; }, minutes(4)));
    gate.refuse(true);
    gate.cut();
    ASSERT_TRUE(eventually([&] { return server.server->sessions() == 0; }));
    gate.refuse(false);
  }
  ASSERT_TRUE(loop.run_until([&] { return server.server->sessions() == kClients; }, minutes(4)));
}

}  // namespace
}  // namespace pitcrew::net::testing
