// The parts that need no server: XML, paths and endpoints, pacing, keys.
#include <map>
#include <set>

#include <gmock/gmock.h>

#include "trainer/checkpoint/name.hpp"
#include "trainer/checkpoint/s3/pacer.hpp"
#include "trainer/checkpoint/s3/s3_storage.hpp"
#include "trainer/checkpoint/s3/xml.hpp"

namespace pitcrew::trainer::s3 {
namespace {

Variables variables(std::map<std::string, std::string> set) {
  return [set](const char* name) {
    const auto found = set.find(name);
    return found == set.end() ? std::string() : found->second;
  };
}

TEST(Xml, elements_are_found_in_order_and_entities_replaced) {
  const std::string xml =
      "<R><C><Key>a&amp;b/&#x2F;&#39;&lt;</Key><Size>3</Size></C><C><Key>second</Key></C><Open>never closed</R>";
  const auto found = elements(xml, "C");
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(element_text(found[0], "Key"), "a&b//'<");
  EXPECT_EQ(element_text(found[1], "Key"), "second");
  EXPECT_EQ(element_text(xml, "Open"), "");
  EXPECT_EQ(element_text(xml, "Absent"), "");
  EXPECT_EQ(escape_xml("\"a&b\""), "&quot;a&amp;b&quot;");
}

TEST(Location, a_bucket_of_aws_is_a_host_of_its_own_in_its_region) {
  const auto location = locate("s3://bucket/a/b/", variables({{"AWS_REGION", "eu-west-1"}}));
  ASSERT_TRUE(location.ok()) << location.error().message;
  EXPECT_EQ(location->endpoint.url(), "https://bucket.s3.eu-west-1.amazonaws.com");
  EXPECT_EQ(location->root, "/");
  EXPECT_EQ(location->prefix, "a/b/");
  EXPECT_EQ(location->path, "s3://bucket/a/b");
  EXPECT_FALSE(location->encrypt);
}

TEST(Location, a_name_with_dots_is_part_of_the_path_and_china_has_its_own_hosts) {
  const auto location = locate("s3://my.bucket", variables({{"AWS_DEFAULT_REGION", "cn-north-1"}}));
  ASSERT_TRUE(location.ok()) << location.error().message;
  EXPECT_EQ(location->endpoint.url(), "https://s3.cn-north-1.amazonaws.com.cn");
  EXPECT_EQ(location->root, "/my.bucket/");
  EXPECT_EQ(location->prefix, "");
}

TEST(Location, an_endpoint_of_ones_own_has_the_bucket_in_its_path) {
  const auto location = locate("s3://bucket/p", variables({{"AWS_ENDPOINT_URL_S3", "http://minio:9000/s3/"},
                                                           {"AWS_ENDPOINT_URL", "http://other"},
                                                           {"PITCREW_S3_KMS_KEY", "alias/checkpoints"}}));
  ASSERT_TRUE(location.ok()) << location.error().message;
  EXPECT_EQ(location->endpoint.url(), "http://minio:9000");
  EXPECT_EQ(location->root, "/s3/bucket/");
  EXPECT_EQ(location->region, "us-east-1");
  EXPECT_TRUE(location->encrypt);
  EXPECT_EQ(location->kms_key, "alias/checkpoints");
  EXPECT_EQ(parse_endpoint("https://host:443/", "X")->host, "host");
}

TEST(Location, what_is_wrong_is_said_with_the_remedy) {
  const auto says = [](const std::string& path, std::map<std::string, std::string> set) {
    const auto location = locate(path, variables(std::move(set)));
    return location ? "fine" : location.error().message;
  };
  EXPECT_THAT(says("s3://bucket/p", {}), ::testing::HasSubstr("set AWS_REGION"));
  EXPECT_THAT(says("s3://", {{"AWS_REGION", "r"}}), ::testing::HasSubstr("write s3://bucket/prefix"));
  EXPECT_THAT(says("s3://Bucket/p", {{"AWS_REGION", "r"}}), ::testing::HasSubstr("'Bucket' is no name of a bucket"));
  EXPECT_THAT(says("s3://bucket/a/../b", {{"AWS_REGION", "r"}}), ::testing::HasSubstr("must not contain"));
  EXPECT_THAT(says("s3://bucket", {{"AWS_ENDPOINT_URL", "minio:9000"}}),
              ::testing::HasSubstr("AWS_ENDPOINT_URL: 'minio:9000' has no scheme"));
}

TEST(Pacer, waits_grow_to_a_bound_and_differ) {
  Pacer pacer(1);
  std::set<Duration> waits;
  for (int attempt = 1; attempt <= 40; ++attempt) {
    const Duration wait = pacer.before_retry(attempt);
    EXPECT_LE(wait, Pacer::kLongestWait);
    EXPECT_LE(wait, Pacer::kFirstWait * (1 << std::min(attempt - 1, 20)));
    waits.insert(wait);
  }
  EXPECT_GT(waits.size(), 35u);
  EXPECT_GT(*waits.rbegin(), seconds(5));
}

TEST(Pacer, slow_down_keeps_all_requests_apart_until_they_succeed_again) {
  Pacer pacer(1);
  const Instant now(seconds(100));
  EXPECT_EQ(pacer.turn(now), Duration{0});
  EXPECT_EQ(pacer.turn(now), Duration{0});
  pacer.slow_down();
  pacer.slow_down();
  EXPECT_EQ(pacer.distance(), 2 * Pacer::kFirstDistance);
  EXPECT_EQ(pacer.turn(now), Duration{0});
  EXPECT_EQ(pacer.turn(now), 2 * Pacer::kFirstDistance);
  EXPECT_EQ(pacer.turn(now), 4 * Pacer::kFirstDistance);
  for (int i = 0; i < 20; ++i) pacer.slow_down();
  EXPECT_EQ(pacer.distance(), Pacer::kLongestDistance);
  for (int i = 0; i < 100; ++i) pacer.succeeded();
  EXPECT_EQ(pacer.distance(), Duration{0});
}

TEST(Keys, shards_are_spread_over_many_prefixes_and_the_rest_keeps_its_name) {
  std::set<std::string> prefixes;
  for (uint32_t rank = 0; rank < 512; ++rank) {
    const std::string name = "step-000000000500-c7/" + shard_file_name(rank, 512);
    const std::string key = key_of(name);
    EXPECT_EQ(key.substr(8), name);
    prefixes.insert(key.substr(0, 8));
  }
  EXPECT_GT(prefixes.size(), 200u);
  for (const char* name : {"step-000000000500-c7/manifest.json", "claims/7.json", "shard", "steps/shard"})
    EXPECT_EQ(key_of(name), name);
}

}  // namespace
}  // namespace pitcrew::trainer::s3
