// The kernel log: anybody who can make the kernel write a line chooses these bytes. What is read stays printable and
// short, is read the same again, and judgement takes it, over a restart too.
#include <cstdlib>
#include <string_view>

#include "agent/judge/builtin_policy.hpp"
#include "agent/judge/judge.hpp"
#include "agent/probe/kernel_log/parse.hpp"
#include "agent/probe/kernel_log/reader.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pitcrew;
  using namespace pitcrew::agent;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  std::vector<Observation> events;
  const auto take = [&](std::string_view line) {
    auto found = kernel_log::parse(line);
    if (!found) return;
    if (found->text.size() > 256 || found->device.size() > 64) std::abort();
    for (const char c : found->text) {
      if (c < 0x20 || c > 0x7e) std::abort();
    }
    found->time = Instant(seconds(1'700'000'000 + static_cast<int64_t>(events.size())));
    events.push_back(std::move(*found));
  };
  std::string_view rest = text;
  while (!rest.empty() && events.size() < 64) {
    const size_t end = rest.find('\n');
    take(rest.substr(0, end));
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  }
  for (const kernel_log::Record& record : kernel_log::split_syslog(text)) take(record.text);
  (void)kernel_log::split_kmsg(text);
  if (const auto position = kernel_log::parse_position(text)) {
    if (!kernel_log::parse_position(to_string(*position)).ok()) std::abort();
  }
  const Instant now(seconds(1'700'100'000));
  const Judgement judgement = judge(events, builtin_policy(), {}, now);
  const auto again = recall(remember(judgement.history));
  if (!again || again->open != judgement.history.open) std::abort();
  return 0;
}
