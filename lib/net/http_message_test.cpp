#include "lib/net/http_message.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lib/net/http_wire.hpp"

namespace pitcrew::net {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Pair;

TEST(HttpMessage, header_names_are_compared_without_case) {
  const Headers headers{{"Content-Type", "a"}, {"content-type", "b"}};
  ASSERT_NE(find_header(headers, "CONTENT-TYPE"), nullptr);
  EXPECT_EQ(*find_header(headers, "CONTENT-TYPE"), "a");
  EXPECT_EQ(find_header(headers, "Content"), nullptr);
}

TEST(HttpMessage, a_target_is_a_path_and_a_query) {
  HttpRequest request;
  request.target = "/a/b?c=d?e";
  EXPECT_EQ(request.path(), "/a/b");
  EXPECT_EQ(request.query(), "c=d?e");
  request.target = "/a";
  EXPECT_EQ(request.query(), "");
}

TEST(HttpMessage, queries_are_decoded_in_order) {
  EXPECT_THAT(parse_query("labelSelector=a%3Db%2Cc&watch&x=1+2&&y=%zz%4"),
              ElementsAre(Pair("labelSelector", "a=b,c"), Pair("watch", ""), Pair("x", "1 2"), Pair("y", "%zz%4")));
  EXPECT_TRUE(parse_query("").empty());
}

TEST(HttpWire, a_value_can_not_begin_a_header_or_a_body) {
  const std::string head = internal::response_head(
      {200, {{"X", "a\r\nY: b\r\n\r\n<body>"}, {"Content-Length", "7"}}, "hi"}, internal::BodyFraming::kLength, true);
  EXPECT_EQ(head, "HTTP/1.1 200 OK\r\nX: a  Y: b    <body>\r\nContent-Length: 2\r\n\r\n");
  EXPECT_THAT(internal::request_head({"GET", "/ HTTP/1.1\r\nX: y", {}, "", {}}, "h"), Not(HasSubstr("\nX: y")));
}

TEST(HttpWire, chunks_carry_their_size_in_hexadecimal) {
  EXPECT_EQ(internal::chunk(std::string(26, 'x')), "1a\r\n" + std::string(26, 'x') + "\r\n");
}

}  // namespace
}  // namespace pitcrew::net
