#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lib/base/object_meta.hpp"

namespace pitcrew::api {

// What a match means for the node.
enum class HealthSeverity {
  kInfo,     // counted, nothing else
  kWarning,  // an Event and a place in NodeHealth; the node stays
  kFault,    // the node is unhealthy: condition, taint, cordon
};

// What the node needs; the repair mode says who does it. Nothing of Pitcrew's resets a GPU.
enum class HealthAction { kNone, kRestart, kReset, kReboot, kReplace };

enum class HealthScope { kGpu, kNode };

// When a verdict ends.
enum class HealthClears {
  kAfterTime,  // `after` has passed without another match, and a good reading was seen where readings are the evidence
  kAfterReboot,  // the node has booted anew
  kAfterCheck,   // a deep check of the node has passed
  kByHand,       // a person has cleared it
};

std::string_view to_string(HealthSeverity severity);
std::string_view to_string(HealthAction action);
std::string_view to_string(HealthScope scope);
std::string_view to_string(HealthClears clears);

// A condition on one value of an observation. Exactly one of its fields besides `value` is set.
struct HealthTest {
  std::string value;                                  // the value's name; with `bits` a register
  std::vector<std::string> is;                        // the text, or the number, is one of these
  std::optional<double> above, below;                 // the number
  std::string above_value, below_value;               // the number, beside another value of the same observation
  std::optional<double> grows, grows_less;            // by more than (less than) this since the reading before
  std::optional<double> per_minute;                   // grows by more than this a minute
  std::string per_minute_above_value;                 // the same, beside another value of the observation
  std::vector<uint32_t> bits;                         // one of these bits is set
  std::optional<std::vector<uint32_t>> bits_outside;  // a bit that is none of these is set
  std::optional<bool> present;                        // the value is there, or is not
  bool operator==(const HealthTest&) const = default;
};

struct CodeRange {
  uint32_t first = 0;
  uint32_t last = 0;
  bool operator==(const CodeRange&) const = default;
};

struct HealthMatch {
  std::string kind;              // "xid", "sxid", "gpu.ecc", … (docs/health.md lists them)
  std::vector<CodeRange> codes;  // none: any
  std::vector<HealthTest> all;   // every one holds
  std::vector<HealthTest> any;   // at least one holds, where there are some
  Duration alone{0};             // no other XID or SXID of the same GPU from this long before until this long after
  bool only_gpu = false;         // no other GPU of the node had one within `window`
  bool operator==(const HealthMatch&) const = default;
};

// What counts as a fault, how often, within which window, and what follows. Rules don't exclude one another: each that
// matches has its own verdict.
struct HealthRule {
  std::string name;
  HealthMatch match;
  uint32_t count = 1;
  Duration window{0};             // needed where count is above 1
  Duration burst{0};              // matches closer together than this count as one
  std::vector<std::string> same;  // values that must be equal among the matches that are counted: link, gpc, tpc
  HealthScope scope = HealthScope::kGpu;
  HealthSeverity severity = HealthSeverity::kWarning;
  bool certain = false;  // cordons at once; others take a token from the CordonBudget
  HealthAction action = HealthAction::kNone;
  HealthClears clears = HealthClears::kAfterTime;
  Duration clear_after = hours(1);
  std::string message;  // what it means and why this follows, for the person who is on call
  std::string source;   // who says so
  bool operator==(const HealthRule&) const = default;

  bool about(std::string_view kind, std::optional<uint32_t> code) const;
};

// Cluster-scoped. The built-in policy is one of these; a cluster's replaces single rules by name and adds others.
struct HealthPolicy {
  static const ResourceType& type();

  ObjectMeta metadata;
  std::vector<HealthRule> rules;
  bool operator==(const HealthPolicy&) const = default;

  const HealthRule* find(std::string_view name) const;
  Json encode() const;
  // Decodes and validates; the error names every problem with its remedy.
  static Result<HealthPolicy> decode(const Json& json);
};

// Everything that is wrong with the document's form goes to `problems`; unknown fields too, with the nearest name.
HealthPolicy decode_health_policy(const Json& json, Problems& problems);
// Everything that is wrong with what it says.
void validate(const HealthPolicy& policy, Problems& problems);

// `base` with each rule of `over` in the place of the rule of that name, or behind the others.
HealthPolicy merge(HealthPolicy base, const HealthPolicy& over);

}  // namespace pitcrew::api
