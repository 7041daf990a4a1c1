#pragma once

#include <string>

#include "lib/base/log.hpp"
#include "operator/app/operator.hpp"
#include "operator/channel/channel_authority.hpp"

namespace pitcrew::control {

// What an operator can be told: the configuration file's keys, with their defaults. docs/operator.md describes them.
struct OperatorConfig {
  std::string launcher_image;
  std::string watch_namespace;  // empty: all

  std::string lease_name = "pitcrew-operator";
  Duration lease_duration = seconds(10);
  Duration renew_deadline = seconds(7);
  Duration retry_period = milliseconds(1500);

  uint32_t channel_port = 9443;
  std::string advertise_address;  // numeric; where launchers' connections to the Service end: this pod's
  std::string channel_service = "pitcrew-channel";
  std::string channel_secret = "pitcrew-channel";
  std::string epoch_secret = "pitcrew-epoch";
  ChannelAuthoritySettings channel_ca;

  uint32_t metrics_port = 8080;
  uint32_t health_port = 8081;  // may be the same

  LogLevel log_level = LogLevel::kInfo;
  LogFormat log_format = LogFormat::kJson;

  RepairMode repair = RepairMode::kNone;
  std::string webhook;
  std::string check_image;
  Duration check_deadline = minutes(30);
  bool check_after_faults = true;
  CheckLimit check_limit;

  enum class Calls { kBeast, kCpprestsdk };
  Calls api_calls = Calls::kBeast;  // through which library; watches and the lease are Beast's
  uint32_t workers = 16;
  uint32_t create_batch_limit = 64;
  double requests_per_second = 200;  // to the API server, the lease's and the token reviews' apart
  double request_burst = 400;
  double token_reviews_per_second = 500;
  double progress_writes_per_second = 20;
};

// What the program's surroundings say beside the file: its pod, by the downward API.
struct OperatorPlace {
  std::string ns = "pitcrew-system";  // of the lease, the Secrets and the Service
  std::string identity;               // the pod's name; unique
  std::string pod_ip;                 // empty: advertise_address must be set
};

// Reads a configuration file's text. All that is wrong with it is one error, each problem with its line, its path and
// a remedy; unknown keys are problems. `file` is for messages.
Result<OperatorConfig> parse_config(const std::string& text, const std::string& file);
// What can't be right, whatever way it came.
Status validate(const OperatorConfig& config);

OperatorSettings operator_settings(const OperatorConfig& config, const OperatorPlace& place);

}  // namespace pitcrew::control
