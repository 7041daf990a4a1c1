#pragma once

#include <cstdint>
#include <string_view>

namespace pitcrew::agent::kernel_log {

// What NVIDIA's decode table of XIDs 144 to 150 says about an error of an NVLink 5 unit.
struct Nvlink5Decision {
  std::string_view resolution;   // reset, ignore, recovery-action (XID 154 tells), or unknown: not in the table
  std::string_view investigate;  // signal, peer, software, host, support, or empty
};

// `unit` as the line names it, `intrinfo` and `status` the first two words of its registers. A status of several bits
// gets the worst of them.
Nvlink5Decision decode_nvlink5(uint32_t xid, std::string_view unit, uint32_t intrinfo, uint32_t status);

}  // namespace pitcrew::agent::kernel_log
