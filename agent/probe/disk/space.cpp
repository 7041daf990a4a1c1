#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>

#include <sys/statvfs.h>

#include "agent/probe/disk/disk.hpp"
#include "agent/probe/observation_tools.hpp"

namespace pitcrew::agent::disk {
namespace {

constexpr size_t kMaxSystems = 64;

// Kinds that are on this machine's own disks. A network's would be asked over the network.
bool is_local(std::string_view type) {
  constexpr std::string_view kTypes[] = {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs"};
  return std::find(std::begin(kTypes), std::end(kTypes), type) != std::end(kTypes);
}

}  // namespace

Result<Space> space_of(const std::string& path) {
  struct statvfs state {};
  if (::statvfs(path.c_str(), &state) != 0) {
    const Code code = errno == ENOENT ? Code::kNotFound : errno == EACCES ? Code::kForbidden : Code::kUnavailable;
    return Error(code, "ask for the space of " + path + ": " + std::strerror(errno));
  }
  const double block = static_cast<double>(state.f_frsize);
  return Space{static_cast<double>(state.f_blocks) * block, static_cast<double>(state.f_bfree) * block,
               static_cast<double>(state.f_bavail) * block, static_cast<double>(state.f_files),
               static_cast<double>(state.f_ffree)};
}

Result<std::vector<Observation>> SpaceProbe::look(Instant now) {
  PITCREW_ASSIGN(const std::vector<Mount> mounts, read_mounts(paths_));
  // One mount of each file system: the shortest path is how people know it. A bind mount may be read-only by itself, so
  // the file system's own state is asked beside a mount that is not.
  struct System {
    const Mount* mount;
    bool writable_mount;
  };
  std::map<std::string, System> systems;
  for (const Mount& mount : mounts) {
    if (!is_local(mount.type)) continue;
    const auto [place, fresh] = systems.try_emplace(mount.device, System{&mount, !mount.mount_read_only});
    if (fresh) continue;
    place->second.writable_mount |= !mount.mount_read_only;
    if (mount.point.size() < place->second.mount->point.size()) place->second.mount = &mount;
  }
  std::vector<Observation> out;
  for (const auto& [device, system] : systems) {
    const Mount& mount = *system.mount;
    Observation reading = make_reading("disk.space", mount.point, now);
    reading.values["source"] = mount.source;
    const bool broken = mount.system_read_only && system.writable_mount;
    reading.values["read_only"] = broken ? 1.0 : 0.0;
    if (broken) reading.text = mount.source + " at " + mount.point + " has become read-only";
    if (!paths_.root.empty()) {
      const auto space = measure_(paths_.root == "/" ? mount.point : paths_.root + mount.point);
      // A mount point that is not seen from here (another namespace's) has no space to tell.
      if (!space && space.error().code != Code::kNotFound && space.error().code != Code::kForbidden) {
        return space.error();
      }
      if (space && space->bytes > 0) {
        const double used = space->bytes - space->free_bytes;
        reading.values["bytes"] = space->bytes;
        reading.values["available_bytes"] = space->available_bytes;
        // As df(1) counts: what root keeps for itself is neither used nor available.
        const double of = used + space->available_bytes;
        reading.values["used_percent"] = of > 0 ? 100 * used / of : 0.0;
        if (space->inodes > 0) {
          reading.values["inodes_used_percent"] = 100 * (space->inodes - space->free_inodes) / space->inodes;
        }
      }
    }
    out.push_back(std::move(reading));
    if (out.size() == kMaxSystems) break;
  }
  return out;
}

}  // namespace pitcrew::agent::disk
