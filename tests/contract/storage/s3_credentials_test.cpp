// Where keys come from: a role of the service account, EKS Pod Identity; and that they are renewed in time.
#include <fstream>

#include <gmock/gmock.h>

#include "tests/contract/storage/http_play.hpp"
#include "tests/contract/storage/s3_server.hpp"
#include "trainer/checkpoint/s3/credentials.hpp"
#include "trainer/checkpoint/testing.hpp"

namespace pitcrew::trainer::s3 {
namespace {

using testing::HttpPlay;
using testing::variables_of;
using Action = HttpPlay::Action;

class S3Credentials : public ::testing::Test {
 protected:
  S3Credentials() { std::ofstream(folder.at("token")) << "the token\n"; }
  std::string in(Duration time) const { return to_rfc3339(clock.now() + time); }
  Action sts(const std::string& id) const {
    return {Action::Kind::kAnswer, 200,
            "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">"
            "<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>" +
                id + "</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>token of " + id +
                "</SessionToken><Expiration>" + in(hours(1)) +
                "</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"};
  }
  Variables role(const HttpPlay& play) const {
    return variables_of({{"AWS_ROLE_ARN", "arn:aws:iam::1:role/train"},
                         {"AWS_WEB_IDENTITY_TOKEN_FILE", folder.at("token")},
                         {"AWS_ENDPOINT_URL_STS", play.url()}});
  }

  trainer::testing::TemporaryFolder folder;
  ManualClock clock;
  Http http{{}};
};

TEST_F(S3Credentials, the_service_accounts_role_is_assumed_with_its_token_and_renewed_before_its_end) {
  int asked = 0;
  HttpPlay play([&](const HttpPlay::Request&) { return sts("ID" + std::to_string(++asked)); });
  Credentials credentials(role(play), "eu-west-1", http, clock);
  auto keys = credentials.keys();
  ASSERT_TRUE(keys) << keys.error().message;
  EXPECT_EQ(keys->id, "ID1");
  EXPECT_EQ(keys->token, "token of ID1");
  EXPECT_EQ(
      play.seen()[0].body,
      "Action=AssumeRoleWithWebIdentity&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Ftrain&RoleSessionName=pitcrew-train&"
      "Version=2011-06-15&WebIdentityToken=the%20token");
  clock.advance(minutes(54));
  EXPECT_EQ(credentials.keys()->id, "ID1");
  std::ofstream(folder.at("token")) << "a newer token";
  clock.advance(minutes(2));
  EXPECT_EQ(credentials.keys()->id, "ID2");
  EXPECT_THAT(play.seen()[1].body, ::testing::HasSubstr("WebIdentityToken=a%20newer%20token"));
}

TEST_F(S3Credentials, keys_at_hand_are_used_to_their_end_while_they_cant_be_renewed) {
  bool broken = false;
  HttpPlay play([&](const HttpPlay::Request&) { return broken ? Action{Action::Kind::kAnswer, 503, ""} : sts("ID"); });
  Credentials credentials(role(play), "eu-west-1", http, clock);
  ASSERT_TRUE(credentials.keys());
  broken = true;
  clock.advance(minutes(56));
  EXPECT_TRUE(credentials.keys());
  EXPECT_TRUE(credentials.keys());
  EXPECT_EQ(play.seen().size(), 2u);  // not with every request
  clock.advance(minutes(5));
  const auto over = credentials.keys();
  ASSERT_FALSE(over);
  EXPECT_EQ(over.error().code, Code::kUnavailable);
}

TEST_F(S3Credentials, keys_that_the_server_refuses_are_fetched_anew) {
  int asked = 0;
  HttpPlay play([&](const HttpPlay::Request&) { return sts("ID" + std::to_string(++asked)); });
  Credentials credentials(role(play), "eu-west-1", http, clock);
  const Keys first = *credentials.keys();
  credentials.refused(first);
  EXPECT_EQ(credentials.keys()->id, "ID2");
  credentials.refused(first);  // late news
  EXPECT_EQ(credentials.keys()->id, "ID2");
}

TEST_F(S3Credentials, a_role_that_does_not_trust_us_is_said) {
  HttpPlay play([](const HttpPlay::Request&) {
    return Action{
        Action::Kind::kAnswer, 403,
        "<ErrorResponse><Error><Code>AccessDenied</Code><Message>Not authorized</Message></Error></ErrorResponse>"};
  });
  Credentials credentials(role(play), "eu-west-1", http, clock);
  const auto keys = credentials.keys();
  ASSERT_FALSE(keys);
  EXPECT_EQ(keys.error().code, Code::kUnauthenticated);
  EXPECT_THAT(keys.error().message, ::testing::HasSubstr("assume the role arn:aws:iam::1:role/train"));
  EXPECT_THAT(keys.error().message, ::testing::HasSubstr("trust policy"));
}

TEST_F(S3Credentials, pod_identity_is_asked_with_the_token_of_its_file) {
  HttpPlay play([&](const HttpPlay::Request&) {
    return Action{Action::Kind::kAnswer, 200,
                  R"({"AccessKeyId": "ID", "SecretAccessKey": "secret", "Token": "session", "Expiration": ")" +
                      in(hours(6)) + "\"}"};
  });
  Credentials credentials(variables_of({{"AWS_CONTAINER_CREDENTIALS_FULL_URI", play.url() + "/v1/credentials"},
                                        {"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", folder.at("token")}}),
                          "eu-west-1", http, clock);
  const auto keys = credentials.keys();
  ASSERT_TRUE(keys) << keys.error().message;
  EXPECT_EQ(keys->token, "session");
  EXPECT_EQ(play.seen()[0].target, "/v1/credentials");
  EXPECT_EQ(play.seen()[0].headers.at("authorization"), "the token");
}

TEST_F(S3Credentials, the_token_is_not_sent_over_plain_http_to_just_anywhere) {
  Credentials credentials(variables_of({{"AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://10.1.2.3/v1/credentials"},
                                        {"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", folder.at("token")}}),
                          "eu-west-1", http, clock);
  const auto keys = credentials.keys();
  ASSERT_FALSE(keys);
  EXPECT_THAT(keys.error().message, ::testing::HasSubstr("neither https nor an address of this machine"));
}

}  // namespace
}  // namespace pitcrew::trainer::s3
