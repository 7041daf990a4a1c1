#include "crds/generate/cel.hpp"
#include "crds/generate/training_job_schema.hpp"

namespace pitcrew::crd {
namespace {

// A field of the published schema that this version does not implement; for the schema of the object that holds it.
Rule refused(const std::string& field, const std::string& remedy) {
  return {.cel = "!has(self." + field + ")",
          .message = "is not supported by this version of Pitcrew; " + remedy,
          .field_path = "." + field,
          .reason = Rule::Reason::kForbidden};
}

// Text without rules: of fields that are refused as a whole.
Schema word(std::string description) { return Schema::text(std::move(description), 1024); }

Schema interval() {
  return Schema::object("How often a durable checkpoint is written: {steps: 500} or {time: 10m}.")
      .field("steps", count("Every so many steps.", {.lowest = 1, .is_64_bit = true}))
      .field("time", duration("Every so often, like 10m.", {"10s", 10}))
      .field("auto", Schema::boolean("As often as loses least: by what a save costs and how often nodes fail. The "
                                     "bundled trainer measures both."))
      .rule(
          {.cel = "has(self.steps) || has(self.time) || has(self.auto)", .message = "needs steps, time or auto: true"})
      .rule({.cel = "!(has(self.steps) && has(self.time))", .message = "has steps and time; keep one of the two"})
      .rule({.cel = "!(has(self.auto) && self.auto) || !(has(self.steps) || has(self.time))",
             .message = "has auto and a number; keep one of the two"})
      .rule({.cel = "!has(self.auto) || self.auto || has(self.steps) || has(self.time)",
             .message = "is false; write auto: true, steps or time",
             .field_path = ".auto"});
}

Schema memory_size() {
  const std::string number =
      "double(self.find('^[0-9]+')) * (self.endsWith('Ki') ? 1024.0 : self.endsWith('Mi') ? "
      "1048576.0 : self.endsWith('Gi') ? 1073741824.0 : self.endsWith('Ti') ? 1099511627776.0 : "
      "self.endsWith('k') ? 1000.0 : self.endsWith('M') ? 1000000.0 : self.endsWith('G') ? "
      "1000000000.0 : self.endsWith('T') ? 1000000000000.0 : 1.0)";
  const std::string is_size = "self.matches('^[0-9]{1,12}(Ki|Mi|Gi|Ti|k|M|G|T)?$')";
  return Schema::integer_or_text(
             "The size of PITCREW_MEMORY in each pod, like 16Gi, or auto. It is added to the "
             "container's memory request and limit if it has them.",
             kMaxDurationText)
      .rule({.cel = "type(self) != int || self >= 0", .message = "must be auto or a quantity like 16Gi"})
      .rule({.cel = "type(self) != string || self == 'auto' || (" + is_size + " && " + number +
                    " <= 1152921504606846976.0)",
             .message = "is not a size; write auto, or a quantity like 16Gi",
             .message_expression = "\"'\" + string(self) + \"' is not a size; write auto, or a quantity like 16Gi\""})
      .rule({.cel = "type(self) == int ? (self < 0 || self >= 1048576) : (self == 'auto' || !" + is_size + " || " +
                    number + " >= 1048576.0)",
             .message = "must be auto or at least 1Mi"})
      .fallback("auto");
}

Schema checkpoint_schema() {
  Schema memory_every =
      Schema::object("How often a checkpoint is kept in memory, in steps.")
          .field("steps", count("Every so many steps.", {.lowest = 1, .is_64_bit = true}).fallback(20))
          .field("time", word("Every so often."))
          .rule(refused("time", "memory checkpoints are counted in steps: every: {steps: 20}"))
          .fallback(Ordered::object());
  Schema memory =
      Schema::object("Checkpoints kept in memory, and their copies on other replicas; leave it out to have none.")
          .field("every", std::move(memory_every))
          .field("copies", count("Copies of each slice, on other replicas' nodes.", {}).fallback(1))
          .field("size", memory_size());
  Schema path =
      Schema::text(
          "A folder on a volume that all replicas mount, as the container sees it, or s3://bucket/prefix. "
          "Immutable.",
          kMaxPath)
          .rule({.cel = "!self.startsWith('s3://') || self.matches('^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?$')",
                 .message = "names no bucket; write s3://bucket/prefix"})
          .rule({.cel = "self == '' || self.startsWith('/') || self.startsWith('s3://')",
                 .message = "must be absolute, as the container sees it: /checkpoints/name, or s3://bucket/prefix"})
          .rule({.cel = "!(self.contains('/../') || self.endsWith('/..'))", .message = "must not contain '..'"});
  return Schema::object("Where checkpoints go and how often they are written.")
      .field("path", std::move(path))
      .field("every", interval())
      .field("memory", std::move(memory))
      .field("keep", count("How many durable checkpoints are kept; damaged ones are not counted and not deleted.",
                           {.lowest = 1, .why = "; the newest checkpoint is what a restart needs"})
                         .fallback(3))
      .rule({.cel = "has(self.path) && self.path != ''",
             .message = "is missing; name the folder where checkpoints go, on a volume that all replicas mount, or "
                        "s3://bucket/prefix",
             .field_path = ".path",
             .reason = Rule::Reason::kRequired});
}

Schema recovery_rule() {
  Schema exit_code =
      Schema::integer("An exit code of a failure, 1 to 255.")
          .rule({.cel = "self >= 1 && self <= 255", .message = "is no exit code of a failure; use 1 to 255"});
  Schema log = Schema::text("A regular expression (RE2) on the failed rank's last lines.", 4096)
                   .rule({.cel = "self.size() <= 1024", .message = "is longer than 1024 characters"})
                   // It never says no, but a pattern that doesn't compile is an error, which carries the message.
                   .rule({.cel = "self.size() > 1024 || ''.matches(self) || !''.matches(self)",
                          .message = "is not a regular expression (RE2)"});
  Schema match = Schema::object("What the rule matches; all that is given must match.")
                     .field("exitCodes", Schema::list("Exit codes of a rank.", std::move(exit_code), 256))
                     .field("log", std::move(log));
  return Schema::object("What follows a failure of the program.")
      .field("match", std::move(match))
      .field("action", one_of("Restart or Fail.", {"Restart", "Fail"}))
      .rule({.cel = "has(self.match) && ((has(self.match.exitCodes) && self.match.exitCodes.size() > 0) || "
                    "(has(self.match.log) && self.match.log != ''))",
             .message = "matches nothing; give exitCodes or log",
             .field_path = ".match"})
      .rule({.cel = "has(self.action)",
             .message = "is missing; say Restart or Fail",
             .field_path = ".action",
             .reason = Rule::Reason::kRequired});
}

Schema recovery_schema() {
  return Schema::object("What follows a failure.")
      .field("limit", Schema::object("More restarts than that within the window, and the job is Failed.")
                          .field("restarts", count("Restarts.", {.highest = 10'000}).fallback(20))
                          .field("window", duration("The window.", {"1m", 60}).fallback("6h"))
                          .fallback(Ordered::object()))
      .field("inPlace", Schema::object("In-place restarts for one cause on one node; then the next rung.")
                            .field("limit", count("Restarts in place.", {.highest = 1'000}).fallback(3))
                            .field("window", duration("The window.", {"1m", 60}).fallback("1h"))
                            .fallback(Ordered::object()))
      .field("waitInPlace",
             duration("How long healthy replicas wait for a missing one before the gang is released.", {"10s", 10})
                 .fallback("10m"))
      .field("avoidNodes", Schema::object("A node that failed so often is avoided; at most so many at a time.")
                               .field("afterFailures", count("Failures on one node.", {.lowest = 1}).fallback(2))
                               .field("limit", count("Nodes avoided at a time.", {}).fallback(4))
                               .fallback(Ordered::object()))
      .field("rules",
             Schema::list("The first that matches wins; without one the evidence is judged.", recovery_rule(), 256)
                 .rule({.cel = "self.size() <= 64", .message = "must be at most 64 rules"}))
      .fallback(Ordered::object());
}

Schema monitoring_schema() {
  Schema slow =
      Schema::text("A share of the job's own best rate; below it the job is reported as slow. Nothing is restarted.",
                   32)
          .rule({.cel = "self.matches('^-?[0-9]+([.][0-9]*)?%$')", .message = "must be a share like 70%"})
          .rule({.cel = "!self.matches('^-?[0-9]+([.][0-9]*)?%$') || (double(self.find('^-?[0-9.]+')) > 0.0 && "
                        "double(self.find('^-?[0-9.]+')) < 100.0)",
                 .message = "must be between 0% and 100%"})
          .fallback("70%");
  Schema progress =
      Schema::object("What is expected of the job's progress.")
          .field("stallAfter", duration("No progress for so long is a hang; auto learns it from the job's own steps.",
                                        {"5s", 5, true})
                                   .fallback("auto"))
          .field("startWithin", duration("For everything before the first step.", {"10s", 10}).fallback("10m"))
          .field("slowBelow", std::move(slow))
          .fallback(Ordered::object());
  Schema log_rule = Schema::object("A number read from the log.")
                        .field("name", word("What the number is called."))
                        .field("pattern", word("RE2; the first group is a number."))
                        .field("startWithin", word("When the first one must have come."))
                        .field("every", word("How often one must come."))
                        .field("until", word("The line after which none is expected."))
                        .field("threshold", Schema::object("What is too much.")
                                                .field("above", Schema::number("Above this,"))
                                                .field("below", Schema::number("below this,"))
                                                .field("times", Schema::integer("so often in a row.")))
                        .field("trend", Schema::object("What is too slow.")
                                            .field("notImprovedIn", Schema::integer("Values without a better one.")))
                        .field("action", word("Report, Restart or Fail."));
  return Schema::object("How the job is watched.")
      .field("progress", std::move(progress))
      .field("rules",
             Schema::list("Numbers read from the log. Not supported by this version.", std::move(log_rule), 64))
      .rule(
          refused("rules",
                  "remove it; hangs are found from the progress page, and recovery.rules match log lines of a failure"))
      .fallback(Ordered::object());
}

Schema placement_schema() {
  Schema capacity =
      Schema::object("Where nodes come from.")
          .field("mode",
                 one_of("Existing: pods are created when the whole gang fits on the nodes there are. Provision: "
                        "pods are created at once, so that an autoscaler adds nodes.",
                        {"Existing", "Provision"})
                     .fallback("Existing"))
          .field("order", Schema::list("Kinds of capacity, best first. Not supported by this version.", word(""), 16))
          .field("reservation", word("A capacity reservation. Not supported by this version."))
          .rule(refused("order", "remove it; nodes are taken as they fit"))
          .rule(refused("reservation", "remove it; select the reservation's nodes in the template's nodeSelector"))
          .fallback(Ordered::object());
  return Schema::object("Where the pods go.")
      .field("capacity", std::move(capacity))
      .field("gangTimeout",
             duration("A gang that isn't complete by then is released whole, with the reason.", {"10s", 10})
                 .fallback("15m"))
      .field("topology", Schema::object("Pods near to each other. Not supported by this version.")
                             .field("key", word("A label of nodes."))
                             .field("mode", word("Preferred or Required.")))
      .field("queue", word("A queue of Kueue's. Not supported by this version."))
      .field("priorityClassName", Schema::text("The pods' priority class.", kMaxName))
      .rule(refused("topology", "remove it; use affinity in the template"))
      .rule(refused("queue", "remove it; the job is admitted when its gang fits"))
      .fallback(Ordered::object());
}

Schema lifecycle_schema() {
  const std::string both = "!has(self.activeDeadline) || !has(self.warnBefore) || !" +
                           cel::is_duration("self.activeDeadline") + " || !" + cel::is_duration("self.warnBefore");
  return Schema::object("When the job runs and when it ends.")
      .field("suspend",
             Schema::boolean("true: save, stop, and give the nodes back; false again: go on.").fallback(false))
      .field("activeDeadline",
             duration("From the first start on; the job saves and stops warnBefore earlier.", {"1m", 60}))
      .field("startDeadline", duration("For being Running for the first time.", {"10s", 10}))
      .field("warnBefore", duration("How long before activeDeadline the job saves and stops.").fallback("5m"))
      .field("ttlAfterFinished", duration("The job is deleted so long after its end; its checkpoints stay."))
      .rule({.cel = both + " || " + cel::seconds_of("self.warnBefore") + " < " + cel::seconds_of("self.activeDeadline"),
             .message = "must be below activeDeadline: the job saves that long before its end",
             .message_expression =
                 "'must be below activeDeadline (' + self.activeDeadline + '): the job saves that long "
                 "before its end'",
             .field_path = ".warnBefore"})
      .fallback(Ordered::object());
}

// What this version refuses as a whole; the shapes are published so that manifests don't change when it is there.
void add_later_fields(Schema& spec) {
  spec.field("elastic", Schema::object("Fewer replicas rather than none. Not supported by this version.")
                            .field("minReplicas", Schema::integer("At least so many."))
                            .field("growAfter", word("How long to wait before growing again.")));
  spec.field("source",
             Schema::object("Code on a shared file system, frozen for the job. Not supported by this version.")
                 .field("volume", word("The volume."))
                 .field("path", word("The folder."))
                 .field("revision", word("The revision."))
                 .field("environment", word("A Python environment.")));
  spec.field("evaluation", Schema::object("A pod for each durable checkpoint. Not supported by this version.")
                               .field("every", Schema::integer("Of so many checkpoints, one."))
                               .field("template", Schema::object("The pod template.").keep_unknown())
                               .field("best", Schema::object("Which checkpoint is best.")
                                                  .field("metric", word("By which number."))
                                                  .field("mode", word("Min or Max."))));
  spec.field("dependsOn", Schema::list("Jobs that come first. Not supported by this version.",
                                       Schema::object("A job that comes first.")
                                           .field("job", word("Its name."))
                                           .field("condition", word("What it must have come to.")),
                                       64));
  spec.field("tracking", Schema::object("One run in an experiment tracker. Not supported by this version.")
                             .field("run", word("The run's name, or auto."))
                             .field("comet", Schema::object("Comet.").field("secret", word("The Secret with the key.")))
                             .field("mlflow", Schema::object("MLflow.").field("url", word("The server."))));
  spec.rule(refused("elastic", "remove it; use spares"));
  spec.rule(refused("source", "mount the volume in the template and put the path into command"));
  spec.rule(refused("evaluation", "evaluate in the training program"));
  spec.rule(refused("dependsOn", "apply this job when the other has succeeded"));
  spec.rule(refused("tracking", "start the tracking run in the training program"));
}

// What an update may not change (validate_update in lib/api); the template says so itself.
void add_immutability(Schema& spec) {
  const char message[] = "can't be changed; delete the job and apply it again (its checkpoints stay)";
  const auto container = [](const std::string& of) {
    return "(has(" + of + ".container) && " + of + ".container != '' ? " + of + ".container : has(" + of +
           ".template) && has(" + of + ".template.spec) && has(" + of + ".template.spec.containers) && " + of +
           ".template.spec.containers.size() > 0 && has(" + of + ".template.spec.containers[0].name) ? " + of +
           ".template.spec.containers[0].name : '')";
  };
  const auto processes = [](const std::string& of) {
    return "(has(" + of + ".processesPerReplica) ? string(" + of + ".processesPerReplica) : 'auto')";
  };
  const auto path = [](const std::string& of) {
    return "(has(" + of + ".checkpoint) && has(" + of + ".checkpoint.path) ? " + of + ".checkpoint.path : '')";
  };
  const auto same = [&](const auto& value, const char* field) {
    spec.rule({.cel = value("self") + " == " + value("oldSelf"),
               .message = message,
               .field_path = field,
               .reason = Rule::Reason::kForbidden});
  };
  same(container, ".container");
  same(processes, ".processesPerReplica");
  same(path, ".checkpoint.path");
  spec.rule({.cel = "self.replicas == oldSelf.replicas || (has(oldSelf.lifecycle) && has(oldSelf.lifecycle.suspend) && "
                    "oldSelf.lifecycle.suspend)",
             .message = "can be changed only while the job is suspended; set lifecycle.suspend: true first",
             .field_path = ".replicas",
             .reason = Rule::Reason::kForbidden});
}

}  // namespace

Schema spec_schema() {
  Schema spec = Schema::object("What is to be trained, on how many pods, and what follows a failure.");
  spec.field("replicas", count("Pods that train; one per node unless the resources say otherwise. Can be changed only "
                               "while the job is suspended.",
                               {.lowest = 1, .highest = 4096})
                             .fallback(1));
  spec.field("spares", count("Warm pods that take over a failed replica's place.", {.highest = 4096}).fallback(0));
  spec.field("processesPerReplica",
             Schema::integer_or_text("Ranks in each pod; auto is the pod's GPUs, or 1. Immutable.", 64)
                 .rule({.cel = "type(self) != string || self == 'auto'", .message = "must be a whole number, is text"})
                 .rule({.cel = "type(self) != int || self >= 0", .message = "must not be negative"})
                 .rule({.cel = "type(self) != int || self < 0 || (self >= 1 && self <= 128)",
                        .message = "must be auto or between 1 and 128"})
                 .fallback("auto"));
  spec.field("container",
             Schema::text("The container that trains; the first where nothing is said. Immutable.", kMaxName));
  spec.field("template", template_schema());
  spec.field("checkpoint", checkpoint_schema());
  spec.field("recovery", recovery_schema());
  spec.field("monitoring", monitoring_schema());
  spec.field("placement", placement_schema());
  spec.field("lifecycle", lifecycle_schema());
  spec.rule({.cel = "has(self.template)",
             .message = "is missing; give the pod template of a replica",
             .field_path = ".template",
             .reason = Rule::Reason::kRequired});
  spec.rule({.cel = "!has(self.checkpoint) || !has(self.checkpoint.memory) || !has(self.checkpoint.memory.copies) || "
                    "self.checkpoint.memory.copies < 0 || self.checkpoint.memory.copies > 4294967295 || self.replicas "
                    "< 0 || self.replicas == 1 || "
                    "self.checkpoint.memory.copies < self.replicas",
             .message = "must be below replicas: copies lie on other replicas",
             .field_path = ".checkpoint.memory.copies"});
  add_template_rules(spec);
  add_later_fields(spec);
  add_immutability(spec);
  return spec;
}

}  // namespace pitcrew::crd
