#pragma once

#include <optional>
#include <string_view>

#include "agent/probe/observation.hpp"

namespace pitcrew::agent::kernel_log {

// What a line of the kernel log says about the node's hardware, file systems or memory; nothing for all other lines.
// The line comes without its priority and time. Pure; any bytes are fine, and text taken over is bounded and printable.
//
//   xid                device = PCI address; values pid, name, and by code: 13: gpc, tpc, sm. 74: link, reg0 … reg6.
//                      144–150: unit, severity, link, injected, intrinfo, status, resolution, investigate. 154: action
//   sxid               device = the switch's PCI address; values severity (Fatal, Non-fatal), link, switch
//   kernel.gpu_lost    device = PCI address: "fallen off the bus" beside the XID
//   kernel.efa         device = the RDMA device or PCI address; values what, fatal
//   kernel.ena         device = PCI address or interface; values what
//   kernel.oom         values pid, name, cgroup (1: only its memory limit was reached)
//   kernel.hung_task   values pid, name, seconds
//   kernel.lockup, kernel.bug
//   kernel.filesystem  device; values fs (ext4, xfs), what (error, read-only, shutdown)
//   kernel.nvme        device; values what (timeout, error, dead)
//   kernel.lustre      device; values what (evicted, lost, slow, error)
//   kernel.mce         values fatal
std::optional<Observation> parse(std::string_view line);

}  // namespace pitcrew::agent::kernel_log
