#include "agent/judge/xid_catalogue.hpp"

#include <algorithm>
#include <array>

namespace pitcrew::agent {
namespace {

using enum Resolution;

// Codes that are not here are unused.
constexpr XidEntry kUsed[] = {
    {8, "GPU stopped processing", kRestartApp},
    {11, "Invalid or corrupted push buffer stream", kRestartApp},
    {13, "Graphics engine exception", kRestartApp},
    {14, "Unused, kept for information", kIgnore},
    {25, "Invalid or illegal push buffer stream", kRestartApp},
    {31, "GPU memory page fault", kRestartApp},
    {32, "Invalid or corrupted push buffer stream", kRestartApp},
    {37, "Driver firmware error", kIgnore},
    {38, "Driver firmware error", kIgnore},
    {39, "Copy engine 0 exception", kRestartApp},
    {40, "Copy engine 1 exception", kRestartApp},
    {41, "Copy engine 2 exception", kRestartApp},
    {43, "GPU stopped processing a channel", kIgnore},
    {44, "Graphics engine fault during context switch", kIgnore},
    {45, "Preemptive cleanup, due to previous errors", kWorkflow},
    {46, "GPU stopped processing", kResetGpu},
    {48, "Double-bit ECC error", kWorkflow},
    {54, "Auxiliary power is not connected", kCheckMechanicals},
    {60, "Video processor exception", kRestartApp},
    {62, "Internal micro-controller halt", kResetGpu},
    {63, "Memory row or page remapped", kIgnore},
    {64, "Memory remapping failed", kResetGpu},
    {66, "Illegal access by driver", kIgnore},
    {67, "Illegal access by driver", kIgnore},
    {68, "NVDEC0 exception", kRestartApp},
    {69, "Graphics engine class error", kRestartApp},
    {70, "Copy engine 3 error", kRestartApp},
    {71, "Copy engine 4 error", kRestartApp},
    {72, "Copy engine 5 error", kRestartApp},
    {74, "NVLink error (up to generation 4)", kWorkflow},
    {75, "Copy engine 6 error", kRestartApp},
    {76, "Copy engine 7 error", kRestartApp},
    {77, "Copy engine 8 error", kRestartApp},
    {78, "vGPU start error", kUpdateSoftware},
    {79, "GPU has fallen off the bus", kRestartMachine},
    {80, "Corrupted data sent to GPU", kRestartApp},
    {82, "NVJPG0 error", kRestartApp},
    {83, "NVDEC1 error", kRestartApp},
    {84, "NVDEC2 error", kRestartApp},
    {85, "Copy engine 9 error", kRestartApp},
    {86, "OFA exception", kRestartApp},
    {88, "NVDEC3 error", kRestartApp},
    {89, "NVDEC4 error", kRestartApp},
    {92, "High rate of single-bit ECC errors", kIgnore},
    {93, "InfoROM wear limit exceeded", kIgnore},
    {94, "Contained memory error", kRestartApp},
    {95, "Uncontained memory error", kResetGpu},
    {96, "NVDEC5 error", kRestartApp},
    {97, "NVDEC6 error", kRestartApp},
    {98, "NVDEC7 error", kRestartApp},
    {99, "NVJPG1 error", kRestartApp},
    {100, "NVJPG2 error", kRestartApp},
    {101, "NVJPG3 error", kRestartApp},
    {102, "NVJPG4 error", kRestartApp},
    {103, "NVJPG5 error", kRestartApp},
    {104, "NVJPG6 error", kRestartApp},
    {105, "NVJPG7 error", kRestartApp},
    {106, "SMBPBI test message", kIgnore},
    {107, "SMBPBI test message, silent", kIgnore},
    {108, "NVLink remote translation error", kIgnore},
    {109, "Context switch time-out", kResetGpu},
    {110, "Security fault", kResetGpu},
    {119, "GSP does not answer", kResetGpu},
    {120, "GSP error", kResetGpu},
    {121, "Chip-to-chip link error", kIgnore},
    {126, "Copy engine 10 error", kRestartApp},
    {127, "Copy engine 11 error", kRestartApp},
    {128, "Copy engine 12 error", kRestartApp},
    {129, "Copy engine 13 error", kRestartApp},
    {130, "Copy engine 14 error", kRestartApp},
    {131, "Copy engine 15 error", kRestartApp},
    {132, "Copy engine 16 error", kRestartApp},
    {133, "Copy engine 17 error", kRestartApp},
    {134, "Copy engine 18 error", kRestartApp},
    {135, "Copy engine 19 error", kRestartApp},
    {136, "Link training failed", kResetGpu},
    {137, "NVLink privilege error", kIgnore},
    {139, "OFA1 error", kRestartApp},
    {140, "Unrecovered ECC error", kResetGpu},
    {141, "CUDA fast path error", kIgnore},
    {142, "NVENC3 error", kContactSupport},
    {143, "GPU initialization error", kResetGpu},
    {144, "NVLink 5: SAW", kWorkflow},
    {145, "NVLink 5: RLW", kWorkflow},
    {146, "NVLink 5: TLW", kWorkflow},
    {147, "NVLink 5: TREX", kWorkflow},
    {148, "NVLink 5: NVLPW_CTRL", kWorkflow},
    {149, "NVLink 5: NETIR", kWorkflow},
    {150, "NVLink 5: MSE", kWorkflow},
    {151, "Key rotation error", kRestartVm},
    {152, "DLA SMMU error", kIgnore},
    {153, "DLA time-out", kIgnore},
    {154, "GPU recovery action changed", kWorkflow},
    {155, "NVLink: error defined by software", kResetGpu},
    {156, "Resource retirement", kResetGpu},
    {157, "Resource retirement failed", kIgnore},
    {158, "GPU fatal time-out", kResetGpu},
    {159, "CHI non-data error", kCheckUvm},
    {160, "Channel retirement", kIgnore},
    {161, "Channel retirement failed", kIgnore},
    {162, "Power smoothing engaged again", kNone},
    {163, "Power smoothing disengaged", kNone},
    {164, "Power smoothing: low lifetime", kNone},
    {165, "Power smoothing: lifetime used up", kNone},
    {166, "NVLink traffic before its encryption was configured", kNone},
    {167, "PCIe fatal time-out", kNone},
    {168, "Errors in the write-protected region", kNone},
    {169, "Internal micro-controller halt (SEC2)", kNone},
    {170, "NVLink interrupt in confidential mode", kNone},
    {171, "Detail of XID 48: DRAM", kNone},
    {172, "Detail of XID 48: SRAM", kNone},
};

constexpr auto make_catalogue() {
  std::array<XidEntry, kLastXid> all{};
  for (uint32_t code = 1; code <= kLastXid; ++code) all[code - 1] = {code, "Unused", kUnused};
  for (const XidEntry& entry : kUsed) all[entry.code - 1] = entry;
  return all;
}
constexpr auto kCatalogue = make_catalogue();

template <size_t N>
constexpr bool among(const uint32_t (&codes)[N], uint32_t code) {
  return std::find(std::begin(codes), std::end(codes), code) != std::end(codes);
}

}  // namespace

std::string_view to_string(Resolution resolution) {
  switch (resolution) {
    case kUnused:
      return "unused, CONTACT_SUPPORT";
    case kIgnore:
      return "IGNORE";
    case kRestartApp:
      return "RESTART_APP";
    case kResetGpu:
      return "RESET_GPU";
    case kRestartVm:
      return "RESTART_VM";
    case kRestartMachine:
      return "RESTART_BM";
    case kCheckMechanicals:
      return "CHECK_MECHANICALS";
    case kContactSupport:
      return "CONTACT_SUPPORT";
    case kUpdateSoftware:
      return "UPDATE_SWFW";
    case kCheckUvm:
      return "CHECK_UVM";
    case kWorkflow:
      return "depends on its data";
    case kNone:
      return "none given";
  }
  return "";
}

std::span<const XidEntry> xid_catalogue() { return kCatalogue; }

const XidEntry* find_xid(uint32_t code) { return code >= 1 && code <= kLastXid ? &kCatalogue[code - 1] : nullptr; }

std::string_view eks_agent_does(uint32_t code) {
  static constexpr uint32_t kFatal[] = {46,  48,  54,  62,  63,  64,  74,  79,  95,  109, 110,
                                        119, 120, 136, 140, 142, 143, 151, 155, 156, 158};
  return among(kFatal, code) ? "node replaced" : "event";
}

std::string_view nvsentinel_does(uint32_t code) {
  const XidEntry* entry = find_xid(code);
  if (entry == nullptr || code > 162) return "not listed";
  // Where its table differs from NVIDIA's newer catalogue.
  if (code == 108) return "fatal, report";
  if (code == 160) return "fatal, RESTART_BM";
  if (code == 162) return "fatal, RESET_GPU";
  switch (entry->resolution) {
    case kUnused:
    case kContactSupport:
      return "fatal, report";
    case kIgnore:
    case kNone:
      return "IGNORE";
    case kRestartApp:
      return "RESTART_APP";
    case kResetGpu:
      return "fatal, RESET_GPU";
    case kRestartVm:
      return "fatal, RESTART_VM";
    case kRestartMachine:
      return "fatal, RESTART_BM";
    case kCheckMechanicals:
      return "fatal, CHECK_MECHANICALS";
    case kUpdateSoftware:
      return "fatal, UPDATE_SWFW";
    case kCheckUvm:
      return "CHECK_UVM";
    case kWorkflow:
      return code == 45 || code == 154 ? "not fatal, workflow" : "fatal, workflow";
  }
  return "";
}

std::string_view dcgm_does(uint32_t code) {
  static constexpr uint32_t kFail[] = {48, 64, 74, 79, 95, 119, 120, 140};
  static constexpr uint32_t kWarn[] = {31, 32, 43, 63, 94};
  if (among(kFail, code)) return "FAIL";
  if (among(kWarn, code)) return "WARN";
  return code == 93 ? "WARN (Volta)" : "-";
}

}  // namespace pitcrew::agent
