#include "operator/app/webhook.hpp"

#include <fstream>
#include <optional>

#include <gtest/gtest.h>

#include "lib/base/testing/temp_folder.hpp"
#include "lib/net/http_server.hpp"

namespace pitcrew::control {
namespace {

// A server on this machine, in the place of whoever repairs nodes.
class WebhookTest : public testing::Test {
 protected:
  WebhookTest() : authority_(*net::CertificateAuthority::create("a root of ours", validity())) {}

  static net::Validity validity() {
    const Instant now = RealClock().now();
    return {now - hours(1), now + hours(1)};
  }

  // `status` 0: it takes the request and never answers.
  void serve(int status, std::optional<net::TlsServerIdentity> identity = {}) {
    net::HttpServerSettings settings;
    settings.address = {"127.0.0.1", 0};
    settings.identity = std::move(identity);
    auto made = net::HttpServer::listen(loop_, settings, [=, this](net::HttpRequest request, auto responder) {
      requests_.push_back(std::move(request));
      if (status == 0) return held_.push_back(std::move(responder));
      net::HttpResponse answer;
      answer.status = status;
      responder->respond(answer);
    });
    ASSERT_TRUE(made) << made.error().message;
    server_ = *std::move(made);
  }
  std::string url(const std::string& scheme) const {
    return scheme + "://127.0.0.1:" + std::to_string(server_->address().port) + "/nodes?from=pitcrew";
  }
  // Believes servers of our own root alone.
  WebhookSettings settings(Duration timeout = seconds(20)) {
    std::ofstream(folder_.path() + "/roots.pem") << authority_.certificate_pem();
    return {timeout, folder_.path() + "/roots.pem"};
  }
  Status post(const std::string& url, WebhookSettings settings) {
    Webhook webhook(loop_, std::move(settings));
    std::optional<Status> status;
    webhook.post(url, R"({"action":"Reboot"})", [&](Status came) { status = std::move(came); });
    loop_.run_until([&] { return status.has_value(); }, seconds(60));
    return status ? *status : Error(Code::kInternal, "the webhook was never answered for");
  }

  TempFolder folder_;
  net::AsioLoop loop_;
  net::CertificateAuthority authority_;
  std::vector<net::HttpRequest> requests_;
  std::vector<net::HttpResponderPtr> held_;
  std::unique_ptr<net::HttpServer> server_;
};

TEST_F(WebhookTest, posts_json_and_takes_any_2xx_for_an_answer) {
  serve(202);
  const Status status = post(url("http"), settings());
  ASSERT_TRUE(status) << status.error().message;
  ASSERT_EQ(requests_.size(), 1u);
  EXPECT_EQ(requests_[0].method, "POST");
  EXPECT_EQ(requests_[0].target, "/nodes?from=pitcrew");
  EXPECT_EQ(requests_[0].body, R"({"action":"Reboot"})");
  const std::string* type = net::find_header(requests_[0].headers, "Content-Type");
  ASSERT_NE(type, nullptr);
  EXPECT_EQ(*type, "application/json");
}

TEST_F(WebhookTest, says_what_a_server_answered_that_took_nothing) {
  serve(500);
  const Status status = post(url("http"), settings());
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, Code::kUnavailable);
  EXPECT_EQ(status.error().message, "the webhook answered 500");
}

TEST_F(WebhookTest, does_not_wait_for_ever) {
  serve(0);
  const Instant begin = loop_.now();
  const Status status = post(url("http"), settings(milliseconds(200)));
  ASSERT_FALSE(status);
  EXPECT_EQ(requests_.size(), 1u) << "it was asked";
  EXPECT_GE(loop_.now() - begin, milliseconds(190));
  EXPECT_LT(loop_.now() - begin, seconds(20));
}

TEST_F(WebhookTest, nobody_listens_is_an_error) {
  serve(200);
  const std::string gone = url("http");
  server_.reset();
  EXPECT_FALSE(post(gone, settings()));
}

TEST_F(WebhookTest, believes_a_server_of_its_roots_under_its_own_name_and_no_other) {
  serve(200, *authority_.issue({{}, {"127.0.0.1"}}, validity()));
  const Status good = post(url("https"), settings());
  EXPECT_TRUE(good) << good.error().message;
  EXPECT_EQ(requests_.size(), 1u);

  serve(200, *authority_.issue({{"repairs.example.com"}, {}}, validity()));
  EXPECT_FALSE(post(url("https"), settings())) << "the certificate is another name's";
  const auto other = *net::CertificateAuthority::create("somebody's root", validity());
  serve(200, *other.issue({{}, {"127.0.0.1"}}, validity()));
  EXPECT_FALSE(post(url("https"), settings())) << "its root is not believed";
  serve(200);
  EXPECT_FALSE(post(url("https"), settings())) << "it speaks no TLS";
  EXPECT_EQ(requests_.size(), 1u) << "who is not believed gets no request";

  WebhookSettings without = settings();
  without.roots = folder_.path() + "/none.pem";
  const Status unread = post(url("https"), without);
  ASSERT_FALSE(unread);
  EXPECT_NE(unread.error().message.find("none.pem"), std::string::npos) << unread.error().message;
}

TEST(Webhook, urls_are_taken_apart) {
  const auto plain = parse_webhook("http://repairs:8080/nodes?x=1");
  ASSERT_TRUE(plain) << plain.error().message;
  EXPECT_FALSE(plain->tls);
  EXPECT_EQ(plain->host, "repairs");
  EXPECT_EQ(plain->port, 8080);
  EXPECT_EQ(plain->target, "/nodes?x=1");
  const auto secure = parse_webhook("https://[fd00::1]");
  ASSERT_TRUE(secure) << secure.error().message;
  EXPECT_TRUE(secure->tls);
  EXPECT_EQ(secure->host, "fd00::1");
  EXPECT_EQ(secure->port, 443);
  EXPECT_EQ(secure->target, "/");
  for (const char* wrong :
       {"", "repairs", "ftp://repairs", "http://", "http://:80/", "http://a:b/", "http://u@host/"}) {
    EXPECT_FALSE(parse_webhook(wrong)) << wrong;
  }
}

}  // namespace
}  // namespace pitcrew::control
