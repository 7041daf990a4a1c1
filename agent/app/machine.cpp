#include "agent/app/machine.hpp"

namespace pitcrew::agent {

Result<Boot> read_boot(const HostPaths& paths) {
  PITCREW_ASSIGN(const Folder proc, Folder::open(paths.proc));
  Boot boot;
  PITCREW_ASSIGN(boot.id, proc.text("sys/kernel/random/boot_id"));
  PITCREW_ASSIGN(const std::string stat, proc.text("stat", 1024 * 1024));
  for (const std::string_view line : split_lines(stat, 1 << 16)) {
    const auto words = split_words(line, 2);
    if (words.size() != 2 || words[0] != "btime") continue;
    const auto since = parse_number(words[1]);
    if (!since) break;
    boot.time = Instant(from_seconds(*since));
    return boot;
  }
  return Error(Code::kDataLoss, paths.proc + "/stat: has no btime, so the kernel log's times mean nothing");
}

std::string read_instance_type(const HostPaths& paths) {
  return read_text(paths.sys + "/devices/virtual/dmi/id/product_name", 256).value_or("");
}

InstanceType machine_of(const std::string& instance_type) {
  const InstanceType* known = find_instance_type(instance_type);
  return known == nullptr ? InstanceType{} : *known;
}

}  // namespace pitcrew::agent
