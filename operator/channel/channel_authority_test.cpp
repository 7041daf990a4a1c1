#include "operator/channel/channel_authority.hpp"

#include <gtest/gtest.h>

namespace pitcrew::control {
namespace {

constexpr Instant kStart{seconds(1'700'000'000)};

size_t roots_in(const std::string& bundle) {
  size_t count = 0;
  for (size_t at = bundle.find("BEGIN CERTIFICATE"); at != std::string::npos;
       at = bundle.find("BEGIN CERTIFICATE", at + 1)) {
    ++count;
  }
  return count;
}

class ChannelAuthorityTest : public testing::Test {
 protected:
  ChannelAuthority next(const ChannelAuthority& authority, Instant now, const std::string& request = "") {
    auto stepped = authority.step(settings_, now, request);
    EXPECT_TRUE(stepped.ok() && stepped->has_value());
    return **stepped;
  }
  bool rests(const ChannelAuthority& authority, Instant now, const std::string& request = "") {
    const auto stepped = authority.step(settings_, now, request);
    return stepped.ok() && !stepped->has_value();
  }
  ChannelAuthoritySettings settings_;
};

TEST_F(ChannelAuthorityTest, survives_the_way_through_its_secret) {
  const auto made = ChannelAuthority::create(settings_, kStart);
  ASSERT_TRUE(made.ok());
  const auto again = ChannelAuthority::decode(made->data());
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(again->bundle(), made->bundle());
  EXPECT_EQ(again->data(), made->data());
  EXPECT_TRUE(net::check(*again->issue(settings_, kStart)).ok());
}

TEST_F(ChannelAuthorityTest, a_rotation_believes_two_roots_for_two_overlaps) {
  const ChannelAuthority first = *ChannelAuthority::create(settings_, kStart);
  EXPECT_TRUE(rests(first, kStart + hours(24 * 200)));
  const Instant begin = kStart + hours(24 * 250);
  const ChannelAuthority believed = next(first, begin);
  EXPECT_EQ(roots_in(believed.bundle()), 2u);
  EXPECT_EQ(believed.signing_certificate(), first.signing_certificate());
  EXPECT_TRUE(rests(believed, begin + settings_.overlap - seconds(1)));
  const ChannelAuthority signing = next(believed, begin + settings_.overlap);
  EXPECT_EQ(roots_in(signing.bundle()), 2u);
  EXPECT_NE(signing.signing_certificate(), first.signing_certificate());
  EXPECT_NE(signing.bundle().find(first.signing_certificate()), std::string::npos);
  const ChannelAuthority over = next(signing, begin + 2 * settings_.overlap);
  EXPECT_EQ(over.bundle(), signing.signing_certificate());
  EXPECT_FALSE(over.rotating());
  EXPECT_TRUE(rests(over, begin + 3 * settings_.overlap));
}

TEST_F(ChannelAuthorityTest, a_short_certificate_is_not_renewed_as_soon_as_it_is_made) {
  settings_.certificate_lifetime = minutes(10);
  const ChannelAuthority authority = *ChannelAuthority::create(settings_, kStart);
  const auto validity = net::validity_of(authority.issue(settings_, kStart)->certificate_pem);
  ASSERT_TRUE(validity);
  EXPECT_EQ(renewal_due(*validity), kStart + seconds(400));
}

TEST_F(ChannelAuthorityTest, a_rotation_that_somebody_asks_for_happens_once) {
  const ChannelAuthority first = *ChannelAuthority::create(settings_, kStart);
  const ChannelAuthority believed = next(first, kStart + hours(1), "leak-1");
  EXPECT_EQ(roots_in(believed.bundle()), 2u);
  ChannelAuthority over = next(next(believed, kStart + hours(26), "leak-1"), kStart + hours(52), "leak-1");
  over = *ChannelAuthority::decode(over.data());
  EXPECT_TRUE(rests(over, kStart + hours(80), "leak-1"));
  EXPECT_FALSE(rests(over, kStart + hours(80), "leak-2"));
}

TEST_F(ChannelAuthorityTest, a_damaged_secret_is_an_error_not_a_new_root) {
  Json data = ChannelAuthority::create(settings_, kStart)->data();
  data["ca.key"] = "bm90IGEga2V5";
  EXPECT_FALSE(ChannelAuthority::decode(data).ok());
  EXPECT_FALSE(ChannelAuthority::decode(Json::object()).ok());
  EXPECT_FALSE(ChannelAuthority::decode(Json()).ok());
}

TEST_F(ChannelAuthorityTest, lifetimes_that_leave_no_time_for_a_rotation_are_refused) {
  EXPECT_TRUE(settings_.validate().ok());
  settings_.root_lifetime = 5 * settings_.overlap;
  EXPECT_FALSE(settings_.validate().ok());
  settings_ = {};
  settings_.overlap = seconds(30);
  EXPECT_FALSE(settings_.validate().ok());
}

}  // namespace
}  // namespace pitcrew::control
