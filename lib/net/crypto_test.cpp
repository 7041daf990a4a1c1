#include "lib/net/crypto.hpp"

#include <gtest/gtest.h>

#include "lib/base/random.hpp"

namespace pitcrew::net {
namespace {

TEST(Crypto, sha256_of_abc_is_the_standards) {
  EXPECT_EQ(hex(sha256("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");  // FIPS 180-2, B.1
}

TEST(Crypto, hmac_sha256_is_the_standards) {
  EXPECT_EQ(hex(hmac_sha256("Jefe", "what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");  // RFC 4231, 4.3
  EXPECT_EQ(hmac_sha256("", "").size(), 32u);
}

TEST(Crypto, base64_is_the_standards_and_comes_back) {
  const std::pair<const char*, const char*> known[] = {{"", ""},
                                                       {"f", "Zg=="},
                                                       {"fo", "Zm8="},
                                                       {"foo", "Zm9v"},
                                                       {"foob", "Zm9vYg=="},
                                                       {"fooba", "Zm9vYmE="},
                                                       {"foobar", "Zm9vYmFy"}};  // RFC 4648, 10
  for (const auto& [bytes, text] : known) {
    EXPECT_EQ(base64_encode(bytes), text);
    const auto decoded = base64_decode(text);
    ASSERT_TRUE(decoded.ok()) << text;
    EXPECT_EQ(*decoded, bytes);
  }
  Random random(1);
  for (size_t size = 0; size < 300; ++size) {
    std::string bytes;
    for (size_t i = 0; i < size; ++i) bytes += static_cast<char>(random.below(256));
    EXPECT_EQ(*base64_decode(base64_encode(bytes)), bytes);
  }
}

TEST(Crypto, wrong_base64_is_refused) {
  for (const char* text : {"Z", "Zg", "Zg=", "Z===", "====", "Zm9\n", "Zm=v", " Zm9", "Zm9-"}) {
    EXPECT_FALSE(base64_decode(text).ok()) << text;
  }
}

TEST(Crypto, random_bytes_differ) {
  EXPECT_EQ(random_bytes(32).size(), 32u);
  EXPECT_NE(random_bytes(32), random_bytes(32));
  EXPECT_NE(random_seed(), random_seed());
}

TEST(Crypto, comparison_in_constant_time_compares) {
  EXPECT_TRUE(equal_in_constant_time("abc", "abc"));
  EXPECT_FALSE(equal_in_constant_time("abc", "abd"));
  EXPECT_FALSE(equal_in_constant_time("abc", "abcd"));
  EXPECT_TRUE(equal_in_constant_time("", ""));
}

}  // namespace
}  // namespace pitcrew::net
