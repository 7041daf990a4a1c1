// What the kernel's small files hold: a driver, a module or whoever mounts a file system chooses these bytes. Every
// parser takes them, what it gives is bounded and printable, and judgement takes the readings.
#include <cmath>
#include <cstdlib>
#include <string_view>

#include "agent/judge/builtin_policy.hpp"
#include "agent/judge/judge.hpp"
#include "agent/judge/rates.hpp"
#include "agent/probe/disk/mounts.hpp"
#include "agent/probe/host.hpp"
#include "agent/probe/lustre/parse.hpp"
#include "agent/probe/node/node.hpp"
#include "agent/probe/versions/versions.hpp"

namespace {

using namespace pitcrew;
using namespace pitcrew::agent;

void check_text(std::string_view text, size_t limit) {
  if (text.size() > limit) std::abort();
  for (const char c : text) {
    if (c < 0x20 || c > 0x7e) std::abort();
  }
}

Observation reading(const char* kind, int64_t second) {
  Observation observation;
  observation.kind = kind;
  observation.device = "fuzz";
  observation.reading = true;
  observation.time = Instant(seconds(1'700'000'000 + second));
  return observation;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const disk::Mount& mount : disk::parse_mountinfo(text)) {
    check_text(mount.point, 1024);
    check_text(mount.source, 1024);
    check_text(mount.type, 32);
  }
  const auto counters = lustre::parse_stats(text);
  if (counters.size() > 256) std::abort();
  for (const auto& [name, counter] : counters) check_text(name, 64);
  if (const auto import = lustre::parse_import(text)) check_text(import->target + import->state, 64 + 24);
  for (const auto& transition : lustre::parse_state_history(text)) check_text(transition.state, 24);
  check_text(lustre::without_instance(text), 64);
  for (const auto& [component, version] : versions::parse_installed_packages(text)) {
    check_text(version, 48);
    if (!versions::parse_version(version)) std::abort();
  }
  check_text(versions::parse_nvidia_version(text), 48);
  check_text(versions::version_in_name(text, "libnccl.so"), 48);
  (void)versions::find_clashes({{"nccl", std::string(text)}, {"efa-installer", "1.28"}});
  for (const char* name : {"MemTotal:", "oom_kill"}) (void)node::named_number(text, name);
  (void)node::waited_percent(text, "full");
  (void)node::threads_of_loadavg(text);

  // Two readings of counters with the numbers that are in the text, as EFA's would come.
  std::vector<Observation> readings{reading("efa.port", 0), reading("efa.port", 15)};
  size_t place = 0;
  for (const std::string_view word : split_words(text, 128)) {
    const auto number = parse_number(word);
    if (!number) continue;
    if (!std::isfinite(*number)) std::abort();
    readings[place++ % 2].values["unresponsive_remote_events"] = *number;
  }
  const Instant now(seconds(1'700'000'100));
  (void)judge(readings, builtin_policy(), {}, now);
  RateWatch watch;
  (void)watch.take(readings, builtin_policy(), now);
  return 0;
}
