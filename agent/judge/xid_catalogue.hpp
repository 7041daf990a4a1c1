#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace pitcrew::agent {

// What NVIDIA's catalogue says to do at once about an XID.
enum class Resolution {
  kUnused,  // "unused", CONTACT_SUPPORT
  kIgnore,
  kRestartApp,
  kResetGpu,
  kRestartVm,
  kRestartMachine,  // RESTART_BM
  kCheckMechanicals,
  kContactSupport,
  kUpdateSoftware,
  kCheckUvm,
  kWorkflow,  // depends on the data of the line: 45, 48, 74, 144-150, 154
  kNone,      // named without a resolution
};
std::string_view to_string(Resolution resolution);

struct XidEntry {
  uint32_t code = 0;
  std::string_view name;
  Resolution resolution = Resolution::kUnused;
};

inline constexpr uint32_t kLastXid = 172;

// NVIDIA's XID catalogue (docs.nvidia.com/deploy/xid-errors, as of 2025-10): every code from 1 to kLastXid.
std::span<const XidEntry> xid_catalogue();
const XidEntry* find_xid(uint32_t code);

// What others do about an XID; for explanations and the comparison in the documentation, never for a verdict.
std::string_view eks_agent_does(uint32_t code);   // eks-node-monitoring-agent 1.7: its list is part of the program
std::string_view nvsentinel_does(uint32_t code);  // NVSentinel 1.x: its table of XIDs
std::string_view dcgm_does(uint32_t code);        // DCGM's XID health watch

}  // namespace pitcrew::agent
