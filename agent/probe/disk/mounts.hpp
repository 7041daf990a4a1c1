#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "agent/probe/host.hpp"

namespace pitcrew::agent::disk {

// A line of mountinfo (proc_pid_mountinfo(5)).
struct Mount {
  std::string device;             // 259:1, the same for every mount of one file system
  std::string point;              // /var/lib/containerd
  std::string type;               // ext4, xfs, lustre
  std::string source;             // /dev/nvme0n1p1
  bool mount_read_only = false;   // this mount
  bool system_read_only = false;  // the file system itself
  bool operator==(const Mount&) const = default;
};
// At most 4096; lines that can't be read are left out.
std::vector<Mount> parse_mountinfo(std::string_view text);

// The machine's mounts: those of its first process, else our own.
Result<std::vector<Mount>> read_mounts(const HostPaths& paths);

}  // namespace pitcrew::agent::disk
