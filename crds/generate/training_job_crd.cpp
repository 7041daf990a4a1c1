#include "crds/generate/cel.hpp"
#include "crds/generate/training_job_schema.hpp"
#include "lib/api/training_job.hpp"

namespace pitcrew::crd {
namespace {

Ordered column(const char* name, const char* type, const char* path, const char* description, int priority = 0) {
  Ordered json;
  json["name"] = name;
  json["type"] = type;
  json["jsonPath"] = path;
  json["description"] = description;
  if (priority != 0) json["priority"] = priority;
  return json;
}

Ordered columns() {
  return Ordered::array({
      column("Phase", "string", ".status.phase", "Where the job is in its life."),
      column("Step", "integer", ".status.progress.step", "The newest step."),
      column("Loss", "number", ".status.progress.loss", "The newest loss."),
      column("Ready", "integer", ".status.replicas.ready", "Pods that train."),
      column("Restarts", "integer", ".status.restarts.total", "Restarts since the job was created."),
      column("Goodput", "number", ".status.goodput.ratio", "The share of wall time in which new steps were made."),
      column("Age", "date", ".metadata.creationTimestamp", "Since the job was created."),
      column("Replicas", "integer", ".spec.replicas", "Pods that should train.", 1),
      column("Spares", "integer", ".status.replicas.spare", "Pods that are ready to take over.", 1),
      column("Checkpoint", "integer", ".status.checkpoint.durable.step", "The newest durable checkpoint's step.", 1),
      column("Epoch", "integer", ".status.epoch.number", "Grows at every start and restart.", 1),
  });
}

Schema root_schema() {
  Schema name = Schema::text("", kMaxName);
  return Schema::object("A training job: pods that train together, and go on by themselves after a failure.")
      .field("apiVersion", Schema::object("pitcrew.dev/v1alpha1").set("type", "string"))
      .field("kind", Schema::object("TrainingJob").set("type", "string"))
      .field("metadata", Schema::object("").field("name", std::move(name)))
      .field("spec", spec_schema())
      .field("status", status_schema())
      .rule(
          {.cel = "has(self.spec)", .message = "is missing", .field_path = ".spec", .reason = Rule::Reason::kRequired})
      .rule({.cel = "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
             .message = "must be lower-case letters, digits and '-', beginning and ending with a letter or digit",
             .message_expression =
                 "\"'\" + self.metadata.name + \"' must be lower-case letters, digits and '-', beginning "
                 "and ending with a letter or digit\"",
             .field_path = ".metadata.name"})
      // The pod's name, job-xxxxx-serial, must stay a DNS label of 63 characters.
      .rule({.cel = "self.metadata.name.size() <= 50",
             .message = "is longer than 50 characters; pod names are made from it, shorten it",
             .field_path = ".metadata.name"});
}

}  // namespace

Ordered training_job_crd() {
  const ResourceType& type = api::TrainingJob::type();
  Ordered version;
  version["name"] = type.version;
  version["served"] = true;
  version["storage"] = true;
  version["subresources"]["status"] = Ordered::object();
  version["additionalPrinterColumns"] = columns();
  version["schema"]["openAPIV3Schema"] = root_schema().json();

  Ordered names;
  names["kind"] = type.kind;
  names["listKind"] = type.kind + "List";
  names["plural"] = type.plural;
  names["singular"] = "trainingjob";
  names["shortNames"] = {"tj"};
  names["categories"] = {"all"};

  Ordered crd;
  crd["apiVersion"] = "apiextensions.k8s.io/v1";
  crd["kind"] = "CustomResourceDefinition";
  crd["metadata"]["name"] = type.plural + "." + type.group;
  crd["spec"]["group"] = type.group;
  crd["spec"]["names"] = std::move(names);
  crd["spec"]["scope"] = type.namespaced ? "Namespaced" : "Cluster";
  crd["spec"]["versions"] = Ordered::array({std::move(version)});
  return crd;
}

}  // namespace pitcrew::crd
