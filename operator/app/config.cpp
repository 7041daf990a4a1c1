#include "operator/app/config.hpp"

#include "lib/base/config_file.hpp"
#include "lib/net/address.hpp"
#include "operator/app/webhook.hpp"

namespace pitcrew::control {
namespace {

const std::vector<std::pair<std::string_view, RepairMode>> kModes = {{"none", RepairMode::kNone},
                                                                     {"condition", RepairMode::kCondition},
                                                                     {"nodeclaim", RepairMode::kNodeClaim},
                                                                     {"label", RepairMode::kLabel},
                                                                     {"webhook", RepairMode::kWebhook}};

bool is_ip(const std::string& text) {
  return net::Address::parse(text.find(':') == std::string::npos ? text + ":1" : "[" + text + "]:1").ok();
}

void check(const OperatorConfig& config, Problems& problems) {
  const auto require = [&](bool good, const char* path, const std::string& message) {
    if (!good) problems.push_back({path, message});
  };
  require(!config.launcher_image.empty(), "launcherImage",
          "is missing; name the image that holds /pitcrew-launcher: registry/pitcrew-launcher:tag");
  const auto port = [&](uint32_t value, const char* path) {
    require(value >= 1 && value <= 65535, path, "must be a port, 1 to 65535");
  };
  port(config.channel_port, "channelPort");
  port(config.metrics_port, "metricsPort");
  port(config.health_port, "healthPort");
  require(config.channel_port != config.metrics_port && config.channel_port != config.health_port, "channelPort",
          "must differ from metricsPort and healthPort: the channel speaks TLS");
  require(config.advertise_address.empty() || is_ip(config.advertise_address), "advertiseAddress",
          "'" + config.advertise_address + "' must be an IP address: names are not resolved on the restart path");
  for (const auto& [value, path] :
       {std::pair{&config.lease_name, "leaseName"}, std::pair{&config.channel_service, "channelService"},
        std::pair{&config.channel_secret, "channelSecret"}, std::pair{&config.epoch_secret, "epochSecret"}}) {
    require(!value->empty(), path, "must not be empty; leave it out for the default");
  }
  require(config.channel_secret != config.epoch_secret, "epochSecret", "must be another Secret than channelSecret");
  require(config.renew_deadline * 10 > config.retry_period * 12 && config.lease_duration > config.renew_deadline,
          "leaseDuration", "must be above renewDeadline, and that above 1.2 x retryPeriod: else two could lead");
  require(config.workers >= 1 && config.workers <= 1024, "workers", "must be between 1 and 1024");
  require(config.create_batch_limit >= 1 && config.create_batch_limit <= 4096, "createBatchLimit",
          "must be between 1 and 4096");
  for (const auto& [value, path] :
       {std::pair{config.requests_per_second, "requestsPerSecond"}, std::pair{config.request_burst, "requestBurst"},
        std::pair{config.token_reviews_per_second, "tokenReviewsPerSecond"},
        std::pair{config.progress_writes_per_second, "progressWritesPerSecond"}}) {
    require(value > 0, path, "must be above 0");
  }
  require(config.repair != RepairMode::kWebhook || parse_webhook(config.webhook).ok(), "repair.webhook",
          "must be a URL, like https://repairs.example.com/nodes, with mode webhook");
  require(config.check_deadline >= minutes(1), "checkDeadline", "must be 1m or more");
  require(config.check_limit.nodes >= 1, "checkLimit.nodes",
          "must be 1 or more; checkAfterFaults: false turns checks off");
  require(config.check_limit.fraction >= 0 && config.check_limit.fraction <= 1, "checkLimit.fraction",
          "must be between 0 and 1");
  if (const Status good = config.channel_ca.validate(); !good) problems.push_back({"channelCa", good.error().message});
}

}  // namespace

Result<OperatorConfig> parse_config(const std::string& text, const std::string& file) {
  OperatorConfig config;
  PITCREW_TRY(read_config(text, file, [&config](ObjectReader& reader, Problems& problems) {
    reader.read("launcherImage", config.launcher_image);
    reader.read("watchNamespace", config.watch_namespace);
    reader.read("leaseName", config.lease_name);
    reader.read("leaseDuration", config.lease_duration);
    reader.read("renewDeadline", config.renew_deadline);
    reader.read("retryPeriod", config.retry_period);
    reader.read("channelPort", config.channel_port);
    reader.read("advertiseAddress", config.advertise_address);
    reader.read("channelService", config.channel_service);
    reader.read("channelSecret", config.channel_secret);
    reader.read("epochSecret", config.epoch_secret);
    if (auto ca = reader.object("channelCa")) {
      ca->read("rootLifetime", config.channel_ca.root_lifetime);
      ca->read("overlap", config.channel_ca.overlap);
      ca->read("certificateLifetime", config.channel_ca.certificate_lifetime);
      ca->finish();
    }
    reader.read("metricsPort", config.metrics_port);
    reader.read("healthPort", config.health_port);
    read_log_keys(reader, config.log_level, config.log_format);
    reader.read_enum("apiCalls", config.api_calls,
                     {{"beast", OperatorConfig::Calls::kBeast}, {"cpprestsdk", OperatorConfig::Calls::kCpprestsdk}});
    if (auto repair = reader.object("repair")) {
      repair->read_enum("mode", config.repair, kModes);
      repair->read("webhook", config.webhook);
      repair->finish();
    }
    reader.read("checkImage", config.check_image);
    reader.read("checkDeadline", config.check_deadline);
    reader.read("checkAfterFaults", config.check_after_faults);
    if (auto limit = reader.object("checkLimit")) {
      limit->read("nodes", config.check_limit.nodes);
      limit->read("fraction", config.check_limit.fraction);
      limit->finish();
    }
    reader.read("workers", config.workers);
    reader.read("createBatchLimit", config.create_batch_limit);
    reader.read("requestsPerSecond", config.requests_per_second);
    reader.read("requestBurst", config.request_burst);
    reader.read("tokenReviewsPerSecond", config.token_reviews_per_second);
    reader.read("progressWritesPerSecond", config.progress_writes_per_second);
    check(config, problems);
  }));
  return config;
}

Status validate(const OperatorConfig& config) {
  Problems problems;
  check(config, problems);
  if (problems.empty()) return {};
  return Error(Code::kInvalidArgument, "configuration: " + join(problems));
}

OperatorSettings operator_settings(const OperatorConfig& config, const OperatorPlace& place) {
  OperatorSettings settings;
  settings.identity = place.identity;
  settings.ns = place.ns;
  settings.watch_namespace = config.watch_namespace;
  settings.lease_name = config.lease_name;
  settings.lease_duration = config.lease_duration;
  settings.renew_deadline = config.renew_deadline;
  settings.retry_period = config.retry_period;
  settings.launcher_image = config.launcher_image;
  settings.repair = config.repair;
  settings.webhook = config.webhook;
  settings.check_image = config.check_image;
  settings.check_deadline = config.check_deadline;
  settings.check_after_faults = config.check_after_faults;
  settings.check_limit = config.check_limit;
  settings.workers = config.workers;
  settings.create_batch_limit = config.create_batch_limit;
  settings.quiet_writes_per_second = config.progress_writes_per_second;
  settings.requests_per_second = config.requests_per_second;
  settings.request_burst = config.request_burst;
  settings.token_reviews_per_second = config.token_reviews_per_second;
  return settings;
}

}  // namespace pitcrew::control
