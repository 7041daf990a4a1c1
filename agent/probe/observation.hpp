#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "lib/base/time.hpp"

namespace pitcrew::agent {

using Value = std::variant<double, std::string>;
// A value as a person reads it: whole numbers without a point.
std::string to_string(const Value& value);

// What a probe has seen, before anybody judges it. Events (an XID, a line of the kernel log) happen once and carry an
// id, so that the same one is not counted twice; readings (ECC counters, the number of GPUs) come again and again.
struct Observation {
  std::string kind;              // "xid", "gpu.ecc": docs/health.md lists them
  std::optional<uint32_t> code;  // of an XID or SXID
  std::string device;            // a GPU's UUID (or PCI address until that is known), a network device; empty: the node
  std::map<std::string, Value, std::less<>> values;
  std::string text;  // what was seen, for people
  std::string id;    // of an event: boot and place in its source
  bool reading = false;
  Instant time;

  std::optional<double> number(std::string_view name) const;
  std::string word(std::string_view name) const;  // empty where it is absent
  bool operator==(const Observation&) const = default;
};

// Kinds that judgement itself understands, beside what the policy's rules match.
namespace kinds {
inline constexpr char kXid[] = "xid";
inline constexpr char kSxid[] = "sxid";
inline constexpr char kBoot[] = "boot";                 // values: boot, the boot's id
inline constexpr char kAgentStart[] = "agent.start";    // readings begin anew
inline constexpr char kDriverStart[] = "driver.start";  // counters begin at 0, devices come and go
inline constexpr char kCheck[] = "check";               // values: passed, 0 or 1
inline constexpr char kClear[] = "clear";               // a person clears values.rule on the device
inline constexpr char kProbe[] = "probe";               // values: probe, ok (0 or 1): how the probe itself does
inline constexpr char kFault[] = "fault";               // made by judgement: a rule of severity Fault has matched
}  // namespace kinds

}  // namespace pitcrew::agent
