#include "operator/channel/websocket_channel.hpp"

#include <gtest/gtest.h>

#include "lib/net/reconnecting_client.hpp"
#include "lib/net/tls.hpp"

namespace pitcrew::control {
namespace {

constexpr Duration kPatience = seconds(60);  // of a noisy machine; nothing waits for it when all is well

struct Heard final : ChannelHandler {
  void opened(const ChannelSessionPtr& opened) override { session = opened; }
  void received(const ChannelSessionPtr&, std::string_view text) override { messages.emplace_back(text); }
  void closed(const ChannelSessionPtr&, const std::string&) override { ++closes; }
  void config_changed() override { ++changes; }
  ChannelSessionPtr session;
  std::vector<std::string> messages;
  int closes = 0;
  int changes = 0;
};

class WebSocketChannelTest : public testing::Test {
 protected:
  WebSocketChannelTest() {
    const net::Validity validity{loop_.now() - hours(1), loop_.now() + hours(1)};
    authority_.emplace(*net::CertificateAuthority::create("test", validity));
    WebSocketChannelSettings settings;
    settings.identity = *authority_->issue({{"pitcrew-channel"}, {}}, validity);
    settings.ca_bundle = authority_->certificate_pem();
    auto made = WebSocketChannelServer::create(loop_, settings);
    PITCREW_INVARIANT(made.ok(), made.ok() ? "" : made.error().message);
    server_ = *std::move(made);
    server_->start(heard_);
  }

  std::unique_ptr<net::ReconnectingClient> connect(const std::string& token) {
    const api::channel::Config config = server_->config();
    net::ReconnectSettings settings;
    settings.addresses = {*net::Address::parse(config.addresses.at(0))};
    settings.trust = net::TlsTrust{config.ca_bundle, config.server_name};
    settings.path = api::channel::kPath;
    settings.headers = [token] {
      return token.empty() ? net::Headers{} : net::Headers{{"Authorization", "Bearer " + token}};
    };
    net::ReconnectHandler handler;
    handler.on_message = [this](std::string text) { received_.push_back(std::move(text)); };
    handler.on_close = [this](const net::WebSocketClose& close) { closes_.push_back(close); };
    handler.on_failed_attempt = [this](const net::Address&, const net::WebSocketClose&) { ++failed_; };
    return std::make_unique<net::ReconnectingClient>(loop_, std::move(settings), std::move(handler), Random(1));
  }
  bool until(const std::function<bool()>& condition) { return loop_.run_until(condition, kPatience); }

  net::AsioLoop loop_;
  std::optional<net::CertificateAuthority> authority_;
  Heard heard_;
  std::unique_ptr<WebSocketChannelServer> server_;
  std::vector<std::string> received_;
  std::vector<net::WebSocketClose> closes_;
  int failed_ = 0;
};

TEST_F(WebSocketChannelTest, carries_the_token_and_messages_both_ways_over_tls) {
  const auto client = connect("secret");
  ASSERT_TRUE(until([&] { return heard_.session != nullptr && client->connected(); }));
  EXPECT_EQ(heard_.session->token(), "secret");
  client->send("hello");
  ASSERT_TRUE(until([&] { return !heard_.messages.empty(); }));
  EXPECT_EQ(heard_.messages[0], "hello");
  heard_.session->send("epoch");
  ASSERT_TRUE(until([&] { return !received_.empty(); }));
  EXPECT_EQ(received_[0], "epoch");
}

TEST_F(WebSocketChannelTest, the_launcher_learns_why_it_was_sent_away) {
  const auto client = connect("secret");
  ASSERT_TRUE(until([&] { return heard_.session != nullptr; }));
  heard_.session->close(CloseCode::kNotLeader, "not leader");
  ASSERT_TRUE(until([&] { return !closes_.empty() && heard_.closes > 0; }));
  EXPECT_EQ(closes_[0].code, static_cast<uint16_t>(CloseCode::kNotLeader));
  EXPECT_EQ(closes_[0].reason, "not leader");
}

TEST_F(WebSocketChannelTest, nobody_without_a_token_gets_a_session) {
  const auto client = connect("");
  ASSERT_TRUE(until([&] { return failed_ > 0; }));
  EXPECT_EQ(heard_.session, nullptr);
}

TEST_F(WebSocketChannelTest, a_rotated_certificate_is_told_and_believed) {
  const net::Validity validity{loop_.now() - hours(1), loop_.now() + hours(1)};
  const auto next = net::CertificateAuthority::create("next", validity);
  ASSERT_TRUE(next.ok());
  ASSERT_TRUE(server_
                  ->set_identity(*next->issue({{"pitcrew-channel"}, {}}, validity),
                                 authority_->certificate_pem() + next->certificate_pem())
                  .ok());
  EXPECT_EQ(heard_.changes, 1);
  const auto client = connect("secret");
  EXPECT_TRUE(until([&] { return heard_.session != nullptr; }));
}

}  // namespace
}  // namespace pitcrew::control
