#include "agent/probe/kernel_log/nvlink5.hpp"

#include <iterator>

namespace pitcrew::agent::kernel_log {
namespace {

enum class Answer { kIgnore, kRecoveryAction, kReset };  // worse is greater

// Source: NVIDIA's XID catalogue, sheet "XID 144-150 Decode" (2025-10): 94 rows, put together where they say the same.
struct StatusRow {
  uint32_t xid;
  std::string_view unit;             // the line's unit begins with this
  uint32_t reset, recovery, ignore;  // bits of the error status
};
constexpr StatusRow kByStatusBit[] = {
    {144, "SAW_MVB", 0x12, 0, 0x2d},
    {145, "RLW_CTRL", 0, 0, 0x80000000},
    {145, "RLW_REMAP", 0xc0, 0x3f, 0x80000300},
    {145, "RLW_RSPCOL", 0x2, 0, 0x80000001},
    {145, "RLW_RXPIPE", 0, 0, 0x8000000f},
    {145, "RLW_SRC_TRACK", 0x31, 0xc, 0x80000002},
    {145, "RLW_TAGSTATE", 0x120002, 0, 0x80010001},
    {146, "TLW_CTRL", 0x4, 0, 0x80000003},
    {146, "TLW_RX", 0x4, 0, 0x80000003},
    {146, "TLW_TX", 0x4, 0, 0x80000003},
    {147, "TREX", 0, 0, 0x80000001},
    {148, "NVLPW", 0, 0, 0x80000000},
};

struct ValueRow {
  std::string_view unit;
  uint32_t status;
  Answer answer;
  std::string_view investigate;
};
constexpr ValueRow kByStatusValue[] = {
    {"NETIR_BER_EVENT", 0, Answer::kIgnore, "signal"},  {"NETIR_BER_EVENT", 1, Answer::kIgnore, "signal"},
    {"NETIR_BER_EVENT", 2, Answer::kIgnore, "signal"},  {"NETIR_BER_EVENT", 3, Answer::kIgnore, "signal"},
    {"NETIR_MFDE_EVENT", 1, Answer::kReset, "support"}, {"NETIR_MFDE_EVENT", 3, Answer::kIgnore, ""},
    {"NETIR_MFDE_EVENT", 4, Answer::kReset, "support"}, {"NETIR_MFDE_EVENT", 5, Answer::kReset, "support"},
    {"NETIR_MFDE_EVENT", 7, Answer::kReset, "support"},
};

// Links that went down, by the cause in bits 20 to 25 of the first word.
struct LinkRow {
  uint32_t cause;
  Answer answer;
  std::string_view investigate;
};
constexpr LinkRow kLinkDown[] = {
    {0, Answer::kReset, "support"},   {1, Answer::kReset, "support"},   {2, Answer::kReset, "signal"},
    {4, Answer::kReset, "signal"},    {10, Answer::kReset, "signal"},   {15, Answer::kReset, "software"},
    {16, Answer::kReset, "software"}, {17, Answer::kReset, "software"}, {18, Answer::kReset, "software"},
    {21, Answer::kReset, "peer"},     {22, Answer::kReset, "software"}, {32, Answer::kReset, "peer"},
    {33, Answer::kReset, "peer"},     {34, Answer::kReset, "peer"},     {35, Answer::kReset, "peer"},
    {36, Answer::kReset, "peer"},     {37, Answer::kReset, "peer"},     {38, Answer::kIgnore, "software"},
    {40, Answer::kIgnore, "host"},    {42, Answer::kReset, "signal"},   {43, Answer::kReset, "signal"},
};

std::string_view word(Answer answer) {
  switch (answer) {
    case Answer::kIgnore:
      return "ignore";
    case Answer::kRecoveryAction:
      return "recovery-action";
    case Answer::kReset:
      return "reset";
  }
  return "unknown";
}

Nvlink5Decision decode_netir(std::string_view unit, uint32_t intrinfo, uint32_t status) {
  if (unit.starts_with("NETIR_LINK")) {
    for (const LinkRow& row : kLinkDown) {
      if (row.cause == ((intrinfo >> 20) & 0x3f)) return {word(row.answer), row.investigate};
    }
    return {"unknown", ""};
  }
  for (const ValueRow& row : kByStatusValue) {
    if (unit.starts_with(row.unit)) {
      if (row.status == status) return {word(row.answer), row.investigate};
      continue;
    }
  }
  if (unit == "NETIR" || unit == "NETIR_INT") return {word(Answer::kReset), "support"};
  return {"unknown", ""};
}

}  // namespace

Nvlink5Decision decode_nvlink5(uint32_t xid, std::string_view unit, uint32_t intrinfo, uint32_t status) {
  if (xid == 149) return decode_netir(unit, intrinfo, status);
  if (xid == 150 && unit.starts_with("MSE")) return {word(Answer::kReset), "support"};
  for (const StatusRow& row : kByStatusBit) {
    if (row.xid != xid || !unit.starts_with(row.unit)) continue;
    if ((status & row.reset) != 0) return {word(Answer::kReset), "support"};
    if ((status & row.recovery) != 0) return {word(Answer::kRecoveryAction), "support"};
    if ((status & row.ignore) != 0 && (status & ~row.ignore) == 0) return {word(Answer::kIgnore), ""};
    return {"unknown", ""};
  }
  return {"unknown", ""};
}

}  // namespace pitcrew::agent::kernel_log
