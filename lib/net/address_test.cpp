#include "lib/net/address.hpp"

#include <gtest/gtest.h>

namespace pitcrew::net {
namespace {

TEST(Address, ipv4_and_ipv6_are_read_and_written_back) {
  for (const char* text : {"10.0.0.7:8443", "[::1]:80", "[2001:db8::7]:65535", "0.0.0.0:0"}) {
    const auto address = Address::parse(text);
    ASSERT_TRUE(address.ok()) << text << ": " << address.error().message;
    EXPECT_EQ(to_string(*address), text);
  }
}

TEST(Address, names_and_other_texts_are_refused) {
  for (const char* text : {"", "10.0.0.7", "localhost:80", "::1:80", "10.0.0.7:", "10.0.0.7:65536", "10.0.0.7:-1",
                           "10.0.0.7:8x", "[::1]", "[::1:80", "10.0.0:80", ":80x"}) {
    EXPECT_FALSE(Address::parse(text).ok()) << text;
  }
}

}  // namespace
}  // namespace pitcrew::net
