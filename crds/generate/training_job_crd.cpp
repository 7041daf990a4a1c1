#include "crds/generate/cel.hpp"
#include "crds/generate/definition.hpp"
#include "crds/generate/training_job_schema.hpp"
#include "lib/api/training_job.hpp"

namespace pitcrew::crd {
namespace {

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
  return object_schema(api::TrainingJob::type(),
                       "A training job: pods that train together, and go on by themselves after a failure.")
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
  return definition(api::TrainingJob::type(),
                    {.singular = "trainingjob", .short_name = "tj", .in_all = true, .status = true}, columns(),
                    root_schema());
}

}  // namespace pitcrew::crd
