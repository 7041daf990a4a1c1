#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lib/net/tls.hpp"

namespace pitcrew::net {
namespace {

using ::testing::HasSubstr;

const Validity kYear{Instant(seconds(1'767'225'600)), Instant(seconds(1'798'761'600))};  // 2026, UTC

TEST(CertificateAuthority, what_it_issues_can_be_read_and_holds_for_the_given_time) {
  const auto authority = CertificateAuthority::create("pitcrew", kYear);
  ASSERT_TRUE(authority.ok()) << authority.error().message;
  const auto identity = authority->issue({{"a.example", "*.b.example"}, {"10.0.0.7", "::1"}}, kYear);
  ASSERT_TRUE(identity.ok()) << identity.error().message;
  EXPECT_TRUE(check(*identity).ok());
  const auto validity = validity_of(identity->certificate_pem);
  ASSERT_TRUE(validity.ok());
  EXPECT_EQ(validity->not_before, kYear.not_before);
  EXPECT_EQ(validity->not_after, kYear.not_after);
}

TEST(CertificateAuthority, it_can_be_stored_and_loaded_again) {
  const auto made = CertificateAuthority::create("pitcrew", kYear);
  const auto loaded = CertificateAuthority::load(made->certificate_pem(), made->key_pem());
  ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  EXPECT_TRUE(loaded->issue({{"a.example"}, {}}, kYear).ok());
}

TEST(CertificateAuthority, what_is_no_authority_is_not_loaded) {
  const auto made = CertificateAuthority::create("pitcrew", kYear);
  const auto other = CertificateAuthority::create("other", kYear);
  const auto leaf = made->issue({{"a.example"}, {}}, kYear);
  EXPECT_FALSE(CertificateAuthority::load(made->certificate_pem(), other->key_pem()).ok());
  EXPECT_FALSE(CertificateAuthority::load(leaf->certificate_pem, leaf->key_pem).ok());
  EXPECT_FALSE(CertificateAuthority::load("", "").ok());
}

TEST(CertificateAuthority, names_that_would_change_the_certificate_are_refused) {
  const auto authority = CertificateAuthority::create("pitcrew", kYear);
  for (const char* name : {"", "a,IP:1.2.3.4", "a b", "a\nb", "DNS:x"}) {
    EXPECT_FALSE(authority->issue({{name}, {}}, kYear).ok()) << name;
  }
  EXPECT_FALSE(authority->issue({{}, {"a.example"}}, kYear).ok());
  EXPECT_FALSE(authority->issue({{}, {}}, kYear).ok());
  EXPECT_FALSE(authority->issue({{"a.example"}, {}}, {kYear.not_after, kYear.not_before}).ok());
}

TEST(Tls, a_key_of_another_certificate_is_refused) {
  const auto authority = CertificateAuthority::create("pitcrew", kYear);
  const auto one = authority->issue({{"a.example"}, {}}, kYear);
  const auto two = authority->issue({{"a.example"}, {}}, kYear);
  const Status status = check(TlsServerIdentity{one->certificate_pem, two->key_pem});
  ASSERT_FALSE(status.ok());
  EXPECT_THAT(status.error().message, HasSubstr("private key"));
}

TEST(Tls, a_bundle_without_certificates_or_with_a_broken_one_is_refused) {
  const auto authority = CertificateAuthority::create("pitcrew", kYear);
  EXPECT_TRUE(check(TlsTrust{authority->certificate_pem() + authority->certificate_pem(), "a"}).ok());
  EXPECT_FALSE(check(TlsTrust{"", "a"}).ok());
  EXPECT_FALSE(check(TlsTrust{authority->certificate_pem(), ""}).ok());
  std::string broken = authority->certificate_pem();
  broken.replace(100, 5, "!!!!!");
  EXPECT_FALSE(check(TlsTrust{authority->certificate_pem() + broken, "a"}).ok());
}

}  // namespace
}  // namespace pitcrew::net
