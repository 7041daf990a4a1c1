#include "crds/generate/cel.hpp"
#include "crds/generate/definition.hpp"
#include "lib/api/node_health.hpp"

namespace pitcrew::crd {
namespace {

// Status is written by programs alone; what isn't described here is dropped.
Schema word(std::string description) { return Schema::object(std::move(description)).set("type", "string"); }

Schema action(std::string description) {
  return word(std::move(description)).set("enum", {"None", "Restart", "Reset", "Reboot", "Replace"});
}

Schema gpu() {
  return Schema::object("A GPU as the agent last saw it.")
      .field("uuid", word("Its UUID."))
      .field("serial", word("Its serial number."))
      .field("pci", word("Its address, like 0000:b9:00.0."))
      .field("model", word("Like NVIDIA H200."));
}

Schema verdict() {
  return Schema::object("A rule that holds.")
      .field("rule", word("The rule's name."))
      .field("device", word("A GPU's UUID or a network device's name; empty: the node."))
      .field("severity", word("What it means for the node.").set("enum", {"Info", "Warning", "Fault"}))
      .field("certain", Schema::boolean("It took no token of the CordonBudget."))
      .field("action", action("What the node needs."))
      .field("message", word("Why, with what was seen."))
      .field("since", Schema::time("Since when."))
      .field("last", Schema::time("When it last matched."))
      .field("count", Schema::integer("Matches so far."));
}

Schema event() {
  return Schema::object("A verdict that came or went.")
      .field("time", Schema::time("When."))
      .field("rule", word("The rule's name."))
      .field("device", word("Which device; empty: the node."))
      .field("change", word("Which of the two.").set("enum", {"Raised", "Cleared"}))
      .field("message", word("Why."))
      .field("severity", word("What it meant for the node.").set("enum", {"Info", "Warning", "Fault"}));
}

Schema rate() {
  return Schema::object("A device's rate where it crossed a rule's limit, or fell back.")
      .field("device", word("A network device's name."))
      .field("counter", word("Which counter."))
      .field("perSecond", Schema::number("How fast it grows."))
      .field("time", Schema::time("When that was so."));
}

Schema check() {
  return Schema::object("The result of one test of a deep check.")
      .field("id", word("The check, by the annotation that asked for it."))
      .field("test", word("Which test."))
      .field("outcome", word("How it came out; Unknown says nothing about the hardware.")
                            .set("enum", {"Passed", "Failed", "Unknown"}))
      .field("message", word("What was measured, or what is wrong."))
      .field("time", Schema::time("When."));
}

Schema status() {
  return Schema::object("What the node's agent judges; checks are the operator's.")
      .field("healthy", Schema::boolean("No fault."))
      .field("needs", action("The strongest action of its faults. Nothing of Pitcrew's resets a GPU: the repair mode "
                             "says who does it."))
      .field("message", word("Its faults, strongest first."))
      .field("bootID", word("The boot that this is about."))
      .field("gpus", Schema::list("Its GPUs.", gpu()))
      .field("verdicts", Schema::list("The rules that hold.", verdict(), api::NodeHealth::kMaxVerdicts))
      .field("history", Schema::list("What came and went, newest last.", event(), api::NodeHealth::kMaxHistory))
      .field("rates", Schema::list("Rates that the operator compares over several nodes.", rate()))
      .field("memory", word("What the agent's judgement carries over a restart; nobody else's business."))
      .field("checks", Schema::list("Results of deep checks. Written by the operator alone.", check()));
}

Schema spec() {
  return Schema::object("Which instance this is about.")
      .field("providerID", Schema::text("The instance; empty where the cloud gives none.", kMaxName))
      .field("nodeUID", Schema::text("The Node object's UID; the identity where there is no providerID.", kMaxName))
      .field("nodeName", Schema::text("The Node's name; other instances may have it later.", kMaxName));
}

}  // namespace

Ordered node_health_crd() {
  const ResourceType& type = api::NodeHealth::type();
  const std::string provided = "has(self.spec.providerID) && self.spec.providerID != ''";
  const std::string instance =
      "self.spec.providerID.lowerAscii().split('/')[self.spec.providerID.split('/').size() - 1]";
  const std::string name = "(" + provided + " ? " + instance + " : 'node-' + self.spec.nodeUID)";
  Schema schema =
      object_schema(type, "The health of an instance, kept when its node is gone.")
          .field("spec", spec())
          .field("status", status())
          .rule({.cel = "has(self.spec)",
                 .message = "is missing",
                 .field_path = ".spec",
                 .reason = Rule::Reason::kRequired})
          .rule({.cel = "has(self.spec) && ((has(self.spec.providerID) && self.spec.providerID != '') || "
                        "(has(self.spec.nodeUID) && self.spec.nodeUID != ''))",
                 .message = "needs providerID or nodeUID; a node's name is not its identity",
                 .field_path = ".spec"})
          // An instance whose ID is no name in the API has one made from it; that one only lib/api knows.
          .rule(
              {.cel = "!has(self.spec) || (" + provided + " ? !" + instance +
                      ".matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') : !(has(self.spec.nodeUID) && self.spec.nodeUID != "
                      "'')) || self.metadata.name == " +
                      name,
               .message = "must be named after the instance",
               .message_expression = "\"must be \" + " + name + " + \", after the instance\"",
               .field_path = ".metadata.name"});
  return definition(
      type, {.singular = "nodehealth", .short_name = "nh", .status = true},
      Ordered::array({column("Node", "string", ".spec.nodeName", "The node's name."),
                      column("Healthy", "boolean", ".status.healthy", "No fault."),
                      column("Needs", "string", ".status.needs", "What the node needs."),
                      column("Faults", "string", ".status.message", "Why."),
                      column("Age", "date", ".metadata.creationTimestamp", "Since the instance was first seen."),
                      column("GPU", "string", ".status.gpus[0].model", "What its GPUs are.", 1),
                      column("Checked", "date", ".status.checks[0].time", "When it was last checked.", 1)}),
      std::move(schema));
}

}  // namespace pitcrew::crd
