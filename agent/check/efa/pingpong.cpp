#include "agent/check/efa/pingpong.hpp"

#include <algorithm>
#include <chrono>
#include <thread>

#include <unistd.h>

#include "agent/check/suite/suite.hpp"
#include "agent/probe/exec/exec.hpp"
#include "agent/probe/host.hpp"

namespace pitcrew::check {
namespace {

using agent::exec::Outcome;
using agent::exec::Program;
using api::CheckOutcome;
using api::CheckTest;

std::string find_tool(const EfaSettings& settings, const std::string& name) {
  for (const std::string& folder : settings.folders) {
    if (::access((folder + "/" + name).c_str(), X_OK) == 0) return folder + "/" + name;
  }
  return "";
}

CheckTest check_device(const EfaSettings& settings, const std::string& tool, const std::string& domain) {
  // "rdmap0s29-rdm" is how libfabric names what the device rdmap0s29 can do reliably.
  const std::string device = domain.ends_with("-rdm") ? domain.substr(0, domain.size() - 4) : domain;
  CheckTest test{"efa", device, CheckOutcome::kPassed, "", 0, {}};
  const auto begin = std::chrono::steady_clock::now();
  const std::string port = std::to_string(settings.port);
  const auto program = [&](std::vector<std::string> more, Duration timeout) {
    std::vector<std::string> command{tool, "-e", "rdm", "-p", "efa", "-d", domain};
    command.insert(command.end(), more.begin(), more.end());
    // Two ends on one machine would else talk through shared memory, and the device would not be asked.
    return Program{.name = "fi-pingpong",
                   .command = std::move(command),
                   .timeout = timeout,
                   .environment = {"FI_EFA_ENABLE_SHM_TRANSFER=0", "FI_EFA_DEVICE_NAME=" + device},
                   .most_output = 64 * 1024};
  };
  Result<Outcome> server = Error(Code::kInternal, "not started");
  std::thread listening([&] { server = agent::exec::run(program({"-B", port}, settings.timeout)); });
  // The server needs a moment until it listens; a client that comes too early ends at once and is tried again.
  Result<Outcome> client = Error(Code::kInternal, "not started");
  const auto until = begin + settings.timeout;
  while (std::chrono::steady_clock::now() < until) {
    const auto left = std::chrono::duration_cast<Duration>(until - std::chrono::steady_clock::now());
    client = agent::exec::run(program({"-P", port, "127.0.0.1"}, std::max(left, Duration(milliseconds(1)))));
    if (!client || client->late || client->code == 0) break;
    std::this_thread::sleep_for(milliseconds(100));
  }
  listening.join();
  const auto found = client && client->code == 0 && !client->late ? parse_pingpong(client->output) : std::nullopt;
  if (found) {
    test.figures.push_back({"bandwidth", "GB/s", found->bytes_per_second / 1e9, {}});
    test.figures.push_back({"latency", "us", found->microseconds, {}});
  } else if (!client) {
    test.outcome = CheckOutcome::kUnknown;
    test.message = client.error().message;
  } else {
    test.outcome = CheckOutcome::kFailed;
    const std::string_view said = client->output;
    const auto lines = agent::split_lines(said);
    test.message = client->late ? "fi_pingpong did not end within " + pitcrew::to_string(settings.timeout)
                                : "fi_pingpong ended with code " + std::to_string(client->code) +
                                      (lines.empty() ? "" : ": " + agent::printable(lines.back(), 120));
  }
  test.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return test;
}

}  // namespace

std::vector<std::string> parse_domains(std::string_view text) {
  constexpr size_t kMaxDomains = 256;
  std::vector<std::string> domains;
  for (const std::string_view line : agent::split_lines(text)) {
    const auto words = agent::split_words(line, 3);
    if (words.size() != 2 || words[0] != "domain:") continue;
    // A device can also talk by datagrams, through another domain; those are not looked at.
    if (words[1].ends_with("-dgrm")) continue;
    std::string domain = agent::printable(words[1], 64);
    if (std::find(domains.begin(), domains.end(), domain) == domains.end()) domains.push_back(std::move(domain));
    if (domains.size() == kMaxDomains) break;
  }
  return domains;
}

std::optional<PingPong> parse_pingpong(std::string_view text) {
  std::optional<PingPong> best;
  size_t bandwidth = 0, time = 0;
  for (const std::string_view line : agent::split_lines(text)) {
    const auto words = agent::split_words(line, 16);
    const auto at = [&](std::string_view name) {
      return static_cast<size_t>(std::find(words.begin(), words.end(), name) - words.begin());
    };
    if (at("MB/sec") < words.size() && at("usec/xfer") < words.size()) {
      bandwidth = at("MB/sec");
      time = at("usec/xfer");
      continue;
    }
    if (time == 0 || words.size() <= std::max(bandwidth, time)) continue;
    const auto megabytes = agent::parse_number(words[bandwidth]), microseconds = agent::parse_number(words[time]);
    if (!megabytes || !microseconds || *megabytes < 0 || *microseconds <= 0) continue;
    if (!best) best = PingPong{0, *microseconds};
    best->bytes_per_second = std::max(best->bytes_per_second, *megabytes * 1e6);
    best->microseconds = std::min(best->microseconds, *microseconds);
  }
  return best;
}

std::vector<CheckTest> check_efa(const EfaSettings& settings, const Expectations& expected) {
  CheckTest whole{"efa", "", CheckOutcome::kSkipped, "", 0, {}};
  const std::string info = find_tool(settings, "fi_info"), tool = find_tool(settings, "fi_pingpong");
  if (info.empty() || tool.empty()) {
    whole.message = "libfabric's fi_info and fi_pingpong are not installed in this image";
    return {whole};
  }
  const auto listed = agent::exec::run(Program{.name = "fi-info",
                                               .command = {info, "-p", "efa", "-t", "FI_EP_RDM"},
                                               .timeout = settings.timeout,
                                               .most_output = 256 * 1024});
  if (!listed) {
    whole.outcome = CheckOutcome::kUnknown;
    whole.message = listed.error().message;
    return {whole};
  }
  // It ends with an error where there is no device: that is a count of 0.
  const auto domains = parse_domains(listed->output);
  if (domains.empty() && expected.efa_devices == 0) {
    whole.message = "no EFA device, and none is known of this machine's type";
    return {whole};
  }
  std::vector<CheckTest> tests;
  whole.outcome = CheckOutcome::kPassed;
  reaches(whole, "devices", "", static_cast<double>(domains.size()), static_cast<double>(expected.efa_devices));
  tests.push_back(std::move(whole));
  for (const std::string& domain : domains) tests.push_back(check_device(settings, tool, domain));
  return tests;
}

}  // namespace pitcrew::check
