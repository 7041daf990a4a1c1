#include "crds/generate/cel.hpp"
#include "crds/generate/definition.hpp"
#include "lib/api/health_policy.hpp"

namespace pitcrew::crd {
namespace {

// Bounds that keep the estimated cost of rules finite; nobody's policy comes near.
constexpr size_t kMaxCodes = 64;
constexpr size_t kMaxTests = 16;
constexpr size_t kMaxWords = 16;
constexpr size_t kMaxRules = 256;  // lib/api/health_policy.cpp
constexpr size_t kMaxText = 16;    // of a duration or a range

Schema name_of_value(std::string description) { return Schema::text(std::move(description), 63); }

Schema short_duration(std::string description) { return duration(std::move(description)).set("maxLength", kMaxText); }

// The seconds of a duration field that may be missing or wrong, which counts as 0.
std::string seconds_of(const std::string& field) {
  return "(has(" + field + ") && " + cel::is_duration(field) + " ? " + cel::seconds_of(field) + " : 0.0)";
}

Schema bits(std::string description) {
  return Schema::list(
      std::move(description),
      Schema::integer("A bit, 0 to 31.")
          .rule({.cel = "self >= 0 && self <= 31", .message = "must be a bit of a 32-bit register, 0 to 31"}),
      32);
}

Schema test() {
  std::string ways;
  for (const char* field : {"above", "below", "grows", "growsLess", "growsPerMinute", "bitsOutside", "present"}) {
    ways += "(has(self." + std::string(field) + ") ? 1 : 0) + ";
  }
  for (const char* field : {"aboveValue", "belowValue", "growsPerMinuteAboveValue"}) {
    ways += "(has(self." + std::string(field) + ") && self." + field + " != '' ? 1 : 0) + ";
  }
  ways += "(has(self.is) && self.is.size() > 0 ? 1 : 0) + (has(self.bits) && self.bits.size() > 0 ? 1 : 0)";
  return Schema::object("A condition on one value of an observation; exactly one field beside value.")
      .field("value", name_of_value("The value's name; with bits a register."))
      .field("is", Schema::list("The text, or the number, is one of these.",
                                Schema::integer_or_text("A text or a whole number.", 64), kMaxWords))
      .field("above", Schema::number("The number is above this."))
      .field("below", Schema::number("The number is below this."))
      .field("aboveValue", name_of_value("The number is above another value of the same observation."))
      .field("belowValue", name_of_value("The number is below another value of the same observation."))
      .field("grows", Schema::number("By more than this since the reading before."))
      .field("growsLess", Schema::number("By less than this since the reading before."))
      .field("growsPerMinute", Schema::number("By more than this a minute."))
      .field("growsPerMinuteAboveValue", name_of_value("By more than another value of the observation a minute."))
      .field("bits", bits("One of these bits is set."))
      .field("bitsOutside", bits("A bit that is none of these is set."))
      .field("present", Schema::boolean("The value is there, or is not."))
      .rule({.cel = "has(self.value) && self.value != ''",
             .message = "is missing; name a value of the observation",
             .field_path = ".value",
             .reason = Rule::Reason::kRequired})
      .rule({.cel = ways + " == 1",
             .message =
                 "needs exactly one of is, above, below, aboveValue, belowValue, grows, growsLess, growsPerMinute, "
                 "growsPerMinuteAboveValue, bits, bitsOutside, present"});
}

Schema match() {
  Schema code = Schema::integer_or_text("A code, or a range like \"144-150\".", kMaxText);
  // No rules, which on values of either type cost too much in lists. That 150-144 is no range only lib/api says.
  code =
      std::move(code).set("pattern", "^[0-9]{1,6}(-([0-9]{1,6}|1000000))?$").set("minimum", 0).set("maximum", 1000000);
  Schema alone =
      short_duration("No other XID or SXID of the same GPU came from this long before until this long after.");
  alone.rule({.cel = "!" + cel::is_duration("self") + " || " + cel::seconds_of("self") + " <= 300.0",
              .message = "is above 5m; faults must not wait that long"});
  return Schema::object("What counts.")
      .field("kind", Schema::text("What was observed: xid, sxid, gpu.ecc, …", 63))
      .field("codes", Schema::list("Codes and ranges of codes; none: any.", std::move(code), kMaxCodes))
      .field("all", Schema::list("Every one of these holds.", test(), kMaxTests))
      .field("any", Schema::list("At least one of these holds.", test(), kMaxTests))
      .field("alone", std::move(alone))
      .field("onlyGPU", Schema::boolean("No other GPU of the node had one within the window."));
}

Schema rule() {
  Schema clears =
      Schema::object("When a verdict ends.")
          .field("when", one_of("After a time without another match, after a reboot, after a passed check, by hand.",
                                {"AfterTime", "AfterReboot", "AfterCheck", "ByHand"})
                             .fallback("AfterTime"))
          .field("after", short_duration("With AfterTime: how long.").fallback("1h"))
          .rule({.cel = "!has(self.when) || self.when != 'AfterTime' || !has(self.after) || !" +
                        cel::is_duration("self.after") + " || " + cel::seconds_of("self.after") + " > 0.0",
                 .message = "must be above 0",
                 .field_path = ".after"})
          .fallback(Ordered::object());
  Schema name = Schema::text("By which a cluster's policy replaces the rule.", 64);
  name.rule({.cel = "self == '' || (self.size() <= 63 && self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'))",
             .message = "must be up to 63 lower-case letters, digits and '-'",
             .message_expression = "\"'\" + self + \"' must be up to 63 lower-case letters, digits and '-'\""});
  const std::string counted = "(has(self.count) && self.count >= 1 && self.count <= 4294967295 ? self.count : 1)";
  return Schema::object("What counts as a fault, how often, within which time, and what follows.")
      .field("name", std::move(name))
      .field("match", match())
      .field("count", count("How many matches it takes.", {.lowest = 1, .highest = 100, .why = ""}).fallback(1))
      .field("window", short_duration("Within which time; needed where count is above 1."))
      .field("burst", short_duration("Matches closer together than this count as one."))
      .field("same", Schema::list("Values that must be equal among the matches that are counted: link, gpc, tpc.",
                                  name_of_value("A value's name."), kMaxWords))
      .field("scope", one_of("What the verdict is about.", {"GPU", "Node"}).fallback("GPU"))
      .field("severity",
             one_of("Info: counted. Warning: an Event and a place in NodeHealth. Fault: the node is unhealthy.",
                    {"Info", "Warning", "Fault"}))
      .field("certain", Schema::boolean("Cordons at once; others take a token from the CordonBudget.").fallback(false))
      .field("action", one_of("What the node needs; the repair mode says who does it.",
                              {"None", "Restart", "Reset", "Reboot", "Replace"})
                           .fallback("None"))
      .field("clears", std::move(clears))
      .field("message", Schema::text("What it means, for the person who is on call.", 1024))
      .field("source", Schema::text("Who says so.", 1024))
      .rule({.cel = "has(self.name) && self.name != ''",
             .message = "is missing; a rule is replaced by its name",
             .field_path = ".name",
             .reason = Rule::Reason::kRequired})
      .rule({.cel = "has(self.match)",
             .message = "is missing; say what counts, like {kind: xid, codes: [79]}",
             .field_path = ".match",
             .reason = Rule::Reason::kRequired})
      .rule({.cel = "has(self.match) && has(self.match.kind) && self.match.kind != ''",
             .message = "is missing; say what is observed, like xid or gpu.ecc",
             .field_path = ".match.kind",
             .reason = Rule::Reason::kRequired})
      .rule({.cel = "has(self.severity)",
             .message = "is missing; say Info, Warning or Fault",
             .field_path = ".severity",
             .reason = Rule::Reason::kRequired})
      .rule({.cel = "!has(self.certain) || !self.certain || (has(self.severity) && self.severity == 'Fault')",
             .message = "is for severity Fault; others cordon nothing",
             .field_path = ".certain"})
      .rule({.cel = "!has(self.match) || !has(self.match.kind) || !self.match.kind.startsWith('probe') || "
                    "!has(self.severity) || self.severity != 'Fault'",
             .message = "must not be Fault; a broken probe is not a broken GPU",
             .field_path = ".severity"})
      .rule({.cel = counted + " <= 1 || " + seconds_of("self.window") + " > 0.0",
             .message = "is missing; say within which time so many count",
             .field_path = ".window"})
      .rule({.cel = "!has(self.match) || !has(self.match.onlyGPU) || !self.match.onlyGPU || " +
                    seconds_of("self.window") + " > 0.0",
             .message = "is missing; onlyGPU looks back that far",
             .field_path = ".window"})
      .rule({.cel = seconds_of("self.window") + " <= 1209600.0",
             .message = "is above 14 days, which is how far back history goes",
             .field_path = ".window"})
      .rule({.cel = seconds_of("self.burst") + " <= " + seconds_of("self.window"),
             .message = "must not be longer than window",
             .field_path = ".burst"})
      .rule({.cel = "has(self.message) && self.message != ''",
             .message = "must be 1 to 1024 characters: what it means, for the person who is on call",
             .field_path = ".message",
             .reason = Rule::Reason::kRequired});
}

Schema spec() {
  Schema rules = Schema::list("Rules, in the order in which they are shown. Each that matches has its own verdict.",
                              rule(), kMaxRules);
  rules.rule({.cel = "self.all(r, !has(r.name) || self.exists_one(s, has(s.name) && s.name == r.name))",
              .message = "have two of one name; names tell rules apart"});
  return Schema::object("Rules that replace those of the built-in policy by name, or come behind them.")
      .field("rules", std::move(rules));
}

}  // namespace

Ordered health_policy_crd() {
  const ResourceType& type = api::HealthPolicy::type();
  Schema schema = object_schema(type, "What counts as a fault of a GPU or a node, and what follows.")
                      .field("spec", spec())
                      .rule({.cel = "has(self.spec)",
                             .message = "is missing",
                             .field_path = ".spec",
                             .reason = Rule::Reason::kRequired});
  return definition(type, {.singular = "healthpolicy", .short_name = "hp"},
                    Ordered::array({column("Rules", "string", ".spec.rules[*].name", "The rules' names."),
                                    column("Age", "date", ".metadata.creationTimestamp", "Since it was created.")}),
                    std::move(schema));
}

}  // namespace pitcrew::crd
