#include "operator/app/webhook.hpp"

#include <gtest/gtest.h>

namespace pitcrew::control {
namespace {

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
