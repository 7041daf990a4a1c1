#pragma once

#include <functional>

#include "agent/probe/disk/mounts.hpp"
#include "agent/probe/probe.hpp"

namespace pitcrew::agent::disk {

// Of a file system, as statvfs(3) tells it.
struct Space {
  double bytes = 0, free_bytes = 0, available_bytes = 0;  // available: to programs that are not root
  double inodes = 0, free_inodes = 0;                     // 0 inodes: it has no fixed number
};
Result<Space> space_of(const std::string& path);

// Local file systems: `disk.space` for each with bytes, inodes, and whether the file system has become read-only under
// a mount that is not (what ext4 does after an error; a mount that is read-only on purpose says so itself).
class SpaceProbe final : public Probe {
 public:
  using Measure = std::function<Result<Space>(const std::string& path)>;
  explicit SpaceProbe(HostPaths paths, Measure measure = space_of)
      : paths_(std::move(paths)), measure_(std::move(measure)) {}
  Result<std::vector<Observation>> look(Instant now) override;

 private:
  HostPaths paths_;
  Measure measure_;
};

// NVMe disks through sysfs: `nvme.disk` for each with its state, temperature and traffic, and `nvme.count` of the
// instance's own disks. EBS volumes are NVMe disks too; they are read and not counted.
class NvmeProbe final : public Probe {
 public:
  // `expected` disks of the instance; 0: not known.
  NvmeProbe(HostPaths paths, unsigned expected) : paths_(std::move(paths)), expected_(expected) {}
  Result<std::vector<Observation>> look(Instant now) override;

 private:
  HostPaths paths_;
  unsigned expected_;
};

}  // namespace pitcrew::agent::disk
