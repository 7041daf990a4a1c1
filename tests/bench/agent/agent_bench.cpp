// Lines of the kernel log read a second, and whether every XID among them was found.
#include <chrono>
#include <cstdio>

#include "agent/probe/kernel_log/reader.hpp"

namespace {

using namespace pitcrew;
using namespace pitcrew::agent;

constexpr int kLines = 100'000;
constexpr int kEvery = 1'000;

std::string busy_log() {
  static constexpr const char* kNoise[] = {
      "audit: type=1400 audit(1700000000.123:456): apparmor=\"DENIED\" operation=\"open\" profile=\"x\"",
      "eth0: Caught tx_queue_len zero misconfig",
      "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build",
      "IPv6: ADDRCONF(NETDEV_CHANGE): eni1234: link becomes ready",
      "EXT4-fs (nvme1n1): mounted filesystem 1b2c with ordered data mode. Quota mode: none.",
      "INFO: rcu detected a thing that is not a hung task",
      "nvme nvme1: 16/0/0 default/read/poll queues"};
  std::string text;
  for (int i = 0; i < kLines; ++i) {
    char time[48];
    std::snprintf(time, sizeof time, "<6>[%5d.%06d] ", 100 + i / 1000, i % 1000 * 1000);
    text += time;
    text +=
        i % kEvery == kEvery - 1 ? "NVRM: Xid (PCI:0000:b9:00): 94, pid=4242, name=python3, Contained" : kNoise[i % 7];
    text += '\n';
  }
  return text;
}

class Shown final : public kernel_log::Source {
 public:
  explicit Shown(const std::string& text) : text_(text) {}
  Result<std::vector<kernel_log::Record>> read() override { return kernel_log::split_syslog(text_); }

 private:
  const std::string& text_;
};

}  // namespace

int main() {
  const std::string text = busy_log();
  double best = 0;
  size_t found = 0;
  for (int round = 0; round < 5; ++round) {
    kernel_log::Reader reader(std::make_unique<Shown>(text), {"boot", Instant(seconds(1'700'000'000)), Duration(0)},
                              {});
    const auto begin = std::chrono::steady_clock::now();
    const auto events = reader.poll(Instant(seconds(1'800'000'000)));
    const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    found = events.ok() ? events->size() : 0;
    best = std::max(best, kLines / elapsed);
  }
  std::printf("kernel log: %.0f lines/s, %zu of %d XIDs found\n", best, found, kLines / kEvery);
  return best >= 100'000 && found == kLines / kEvery ? 0 : 1;
}
