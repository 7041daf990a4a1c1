// The examples of "Authenticating Requests: Using the Authorization Header (AWS Signature Version 4)", Amazon S3 API
// Reference: bucket examplebucket in us-east-1 on 2013-05-24, with the keys that AWS's documentation uses.
#include "trainer/checkpoint/s3/signature.hpp"

#include <gtest/gtest.h>

namespace pitcrew::trainer::s3 {
namespace {

const Keys kKeys{"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", ""};

std::string signature_of(SignedRequest request, const Keys& keys = kKeys) {
  request.headers["host"] = "examplebucket.s3.amazonaws.com";
  if (request.payload_digest.empty()) request.payload_digest = sha256_hex(std::string_view());
  const auto added = sign(request, keys, "us-east-1", "s3", *parse_rfc3339("2013-05-24T00:00:00Z"));
  const std::string& text = added.at("authorization");
  return text.substr(text.rfind('=') + 1);
}

TEST(Signature, of_a_ranged_get_is_that_of_the_documentation) {
  EXPECT_EQ(signature_of({"GET", "/test.txt", {}, {{"range", "bytes=0-9"}}, ""}),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

TEST(Signature, of_a_put_with_a_name_to_encode_is_that_of_the_documentation) {
  EXPECT_EQ(signature_of({"PUT",
                          "/test$file.text",
                          {},
                          {{"date", "Fri, 24 May 2013 00:00:00 GMT"}, {"x-amz-storage-class", "REDUCED_REDUNDANCY"}},
                          sha256_hex("Welcome to Amazon S3.")}),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
}

TEST(Signature, of_a_query_without_a_value_is_that_of_the_documentation) {
  EXPECT_EQ(signature_of({"GET", "/", {{"lifecycle", ""}}, {}, ""}),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
}

TEST(Signature, of_a_list_is_that_of_the_documentation_in_any_order_of_the_query) {
  const char* expected = "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7";
  EXPECT_EQ(signature_of({"GET", "/", {{"max-keys", "2"}, {"prefix", "J"}}, {}, ""}), expected);
  EXPECT_EQ(signature_of({"GET", "/", {{"prefix", "J"}, {"max-keys", "2"}}, {}, ""}), expected);
}

TEST(Signature, names_the_keys_their_scope_and_the_signed_headers_and_carries_the_token) {
  const SignedRequest request{"GET", "/", {}, {{"host", "bucket"}}, sha256_hex(std::string_view())};
  const auto added =
      sign(request, {"ID", "secret", "token"}, "eu-west-1", "s3", *parse_rfc3339("2013-05-24T12:34:56Z"));
  EXPECT_EQ(added.at("x-amz-date"), "20130524T123456Z");
  EXPECT_EQ(added.at("x-amz-security-token"), "token");
  EXPECT_EQ(added.at("authorization").substr(0, added.at("authorization").rfind(',')),
            "AWS4-HMAC-SHA256 Credential=ID/20130524/eu-west-1/s3/aws4_request,"
            "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token");
}

TEST(Signature, digests_are_the_standards) {
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");  // FIPS 180-2, B.1
}

TEST(Signature, everything_but_unreserved_characters_is_encoded) {
  EXPECT_EQ(encode_uri("a b/ü~-._+=", true), "a%20b/%C3%BC~-._%2B%3D");
  EXPECT_EQ(encode_uri("a/b", false), "a%2Fb");
  EXPECT_EQ(canonical_query({{"b", ""}, {"a", "1 2"}}), "a=1%202&b=");
}

}  // namespace
}  // namespace pitcrew::trainer::s3
