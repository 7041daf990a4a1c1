#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/check/suite/expectations.hpp"
#include "lib/api/check_report.hpp"
#include "lib/base/time.hpp"

namespace pitcrew::check {

struct EfaSettings {
  std::vector<std::string> folders = {"/opt/amazon/efa/bin", "/usr/bin",
                                      "/usr/local/bin"};  // where libfabric's tools are
  Duration timeout = seconds(60);                         // of one device
  uint16_t port = 47592;                                  // on which client and server find each other
};

// Each EFA device by itself: libfabric's fi_pingpong from the device to itself, over its network hardware and not over
// shared memory. Skipped where libfabric's tools are not installed; fewer devices than the machine should have are a
// failure.
std::vector<api::CheckTest> check_efa(const EfaSettings& settings, const Expectations& expected);

// The reliable domains in what `fi_info -p efa` prints, each once: one for each device.
std::vector<std::string> parse_domains(std::string_view text);

// Of what the client of fi_pingpong prints: the best bandwidth and the shortest time of all sizes.
struct PingPong {
  double bytes_per_second = 0;
  double microseconds = 0;  // of one transfer
};
std::optional<PingPong> parse_pingpong(std::string_view text);

}  // namespace pitcrew::check
