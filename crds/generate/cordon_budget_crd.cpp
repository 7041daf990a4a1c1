#include "crds/generate/cel.hpp"
#include "crds/generate/definition.hpp"
#include "lib/api/cordon_budget.hpp"

namespace pitcrew::crd {
namespace {

Schema spec() {
  Schema window = duration("Within which time.");
  window.rule({.cel = "!" + cel::is_duration("self") + " || (" + cel::seconds_of("self") + " >= 10.0 && " +
                      cel::seconds_of("self") + " <= 86400.0)",
               .message = "must be from 10s to 24h"});
  return Schema::object("How many nodes agents may cordon by themselves. Certain faults count, and are not refused.")
      .field("maxNodes", count("So many nodes always.", {}).fallback(3))
      .field("maxFraction", Schema::number("So many of the nodes that have an agent, where that is more.")
                                .rule({.cel = "self >= 0.0 && self <= 1.0",
                                       .message = "must be from 0 to 1, a share of the nodes that have an agent"})
                                .fallback(0.2))
      .field("window", std::move(window).fallback("5m"))
      .fallback(Ordered::object());
}

Schema status() {
  Schema cordon = Schema::object("A cordon by a node's agent.")
                      .field("providerID", Schema::text("The instance.", kMaxName))
                      .field("nodeUID", Schema::text("The Node object's UID.", kMaxName))
                      .field("time", Schema::time("When."))
                      .field("fault", Schema::text("The rule's name.", 63))
                      .field("certain", Schema::boolean("It took no token; it counts all the same."))
                      .set("required", {"time"});
  return Schema::object("What agents cordoned.")
      .field("cordons",
             Schema::map("By the node's name. An agent writes the entry of its own node alone.", std::move(cordon))
                 .set("maxProperties", api::CordonBudget::kMaxCordons));
}

}  // namespace

Ordered cordon_budget_crd() {
  const ResourceType& type = api::CordonBudget::type();
  return definition(
      type, {.singular = "cordonbudget", .short_name = "cb", .status = true},
      Ordered::array({column("Nodes", "integer", ".spec.maxNodes", "So many nodes may be cordoned by agents."),
                      column("Fraction", "number", ".spec.maxFraction", "So many of them where that is more."),
                      column("Window", "string", ".spec.window", "Within which time."),
                      column("Age", "date", ".metadata.creationTimestamp", "Since it was created.")}),
      object_schema(type, "How many nodes agents may cordon by themselves within a time.")
          .field("spec", spec())
          .field("status", status()));
}

}  // namespace pitcrew::crd
