#include "operator/app/config.hpp"

#include <gtest/gtest.h>

namespace pitcrew::control {
namespace {

TEST(OperatorConfigTest, a_file_with_nothing_but_the_launcher_image_has_the_documented_defaults) {
  const auto config = parse_config("launcherImage: registry/pitcrew-launcher:1\n", "f");
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(config->launcher_image, "registry/pitcrew-launcher:1");
  EXPECT_EQ(config->channel_port, 9443u);
  EXPECT_EQ(config->metrics_port, 8080u);
  EXPECT_EQ(config->health_port, 8081u);
  EXPECT_EQ(config->lease_duration, seconds(10));
  EXPECT_EQ(config->log_format, LogFormat::kJson);
}

TEST(OperatorConfigTest, every_key_arrives) {
  const auto config = parse_config(
      "launcherImage: i\nwatchNamespace: team\nleaseName: l\nleaseDuration: 20s\nrenewDeadline: 15s\nretryPeriod: 3s\n"
      "channelPort: 1\nadvertiseAddress: 10.0.0.7\nchannelService: s\nchannelSecret: c\nepochSecret: e\n"
      "channelCa: {rootLifetime: 48h, overlap: 1h, certificateLifetime: 2h}\n"
      "metricsPort: 2\nhealthPort: 2\nlogLevel: debug\nlogFormat: plain\napiCalls: cpprestsdk\nworkers: "
      "3\ncreateBatchLimit: 4\n"
      "repair: {mode: webhook, webhook: \"https://r/\"}\ncheckImage: k\ncheckDeadline: 5m\ncheckAfterFaults: false\n"
      "checkLimit: {nodes: 3, fraction: 0.25}\n"
      "requestsPerSecond: 5\nrequestBurst: 6\ntokenReviewsPerSecond: 7\nprogressWritesPerSecond: 8\n",
      "f");
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(config->api_calls, OperatorConfig::Calls::kCpprestsdk);
  const OperatorSettings settings = operator_settings(*config, {"ns", "me", "10.0.0.7"});
  EXPECT_EQ(settings.watch_namespace, "team");
  EXPECT_EQ(settings.lease_name, "l");
  EXPECT_EQ(settings.lease_duration, seconds(20));
  EXPECT_EQ(settings.repair, RepairMode::kWebhook);
  EXPECT_EQ(settings.webhook, "https://r/");
  EXPECT_EQ(settings.check_image, "k");
  EXPECT_EQ(settings.check_deadline, minutes(5));
  EXPECT_FALSE(settings.check_after_faults);
  EXPECT_EQ(settings.check_limit, (CheckLimit{3, 0.25}));
  EXPECT_EQ(settings.workers, 3u);
  EXPECT_EQ(settings.create_batch_limit, 4u);
  EXPECT_EQ(settings.requests_per_second, 5);
  EXPECT_EQ(settings.request_burst, 6);
  EXPECT_EQ(settings.token_reviews_per_second, 7);
  EXPECT_EQ(settings.quiet_writes_per_second, 8);
  EXPECT_EQ(config->channel_ca.overlap, hours(1));
  EXPECT_EQ(config->log_level, LogLevel::kDebug);
}

TEST(OperatorConfigTest, an_unknown_key_is_refused_with_its_line_and_the_key_that_was_meant) {
  const auto config = parse_config("launcherImage: i\nchannelprt: 3\nworkers: many\n", "operator.yaml");
  ASSERT_FALSE(config.ok());
  const std::string& message = config.error().message;
  EXPECT_NE(message.find("operator.yaml:2: channelprt"), std::string::npos) << message;
  EXPECT_NE(message.find("channelPort"), std::string::npos) << message;
  EXPECT_NE(message.find("operator.yaml:3: workers"), std::string::npos) << message;
}

TEST(OperatorConfigTest, what_can_not_be_right_says_the_remedy) {
  const auto refused = [](const std::string& line, const std::string& words) {
    const auto config = parse_config("launcherImage: i\n" + line, "f");
    return !config.ok() && config.error().message.find(words) != std::string::npos;
  };
  EXPECT_TRUE(refused("leaseDuration: 5s\n", "renewDeadline"));
  EXPECT_TRUE(refused("repair: {mode: webhook, webhook: repairs}\n", "must be a URL"));
  EXPECT_TRUE(refused("repair: {mode: reboot}\n", "is none of: none, condition, nodeclaim, label, webhook"));
  EXPECT_TRUE(refused("advertiseAddress: operator.example\n", "IP address"));
  EXPECT_TRUE(refused("metricsPort: 9443\n", "must differ"));
  EXPECT_TRUE(refused("channelCa: {overlap: 1s}\n", "overlap"));
  EXPECT_TRUE(refused("requestsPerSecond: 0\n", "above 0"));
  const auto empty = parse_config("logLevel: info\n", "f");
  EXPECT_FALSE(empty.ok());
  EXPECT_NE(empty.error().message.find("launcherImage"), std::string::npos);
}

}  // namespace
}  // namespace pitcrew::control
