#include "crds/generate/training_job_schema.hpp"
#include "lib/api/training_job.hpp"

namespace pitcrew::crd {
namespace {

// Status is written by the operator alone, so no rule costs a write anything; but what isn't described here is dropped.
Schema word(std::string description) { return Schema::object(std::move(description)).set("type", "string"); }

template <typename... Enums>
Schema one_of(std::string description, Enums... values) {
  Ordered words = Ordered::array();
  (words.push_back(std::string(to_string(values))), ...);
  return word(std::move(description)).set("enum", std::move(words));
}

Schema cause() {
  using enum api::Cause;
  return one_of("What failed.", kRankCrash, kLauncherDeath, kHang, kGpuFault, kEfaFault, kNodeLoss, kPlanned, kProgram,
                kUnknown);
}

Schema rung() {
  using enum api::Rung;
  return one_of("What was done.", kInPlace, kRelaunched, kSpareTaken, kRecreated, kShrunk, kReleased, kFailed);
}

Schema phase() {
  using enum api::Phase;
  return one_of("Where the job is in its life.", kPending, kStarting, kRunning, kRecovering, kSuspended, kSucceeded,
                kFailed);
}

Schema conditions() {
  return Schema::list("Admitted, Running, Checkpointed, Succeeded, Failed; with reasons.",
                      Schema::object("One condition.")
                          .field("type", word("Which condition."))
                          .field("status", word("Whether it holds.").set("enum", {"True", "False", "Unknown"}))
                          .field("reason", word("Why, in one word."))
                          .field("message", word("Why, for people."))
                          .field("observedGeneration", Schema::integer("The generation of the spec that it is about."))
                          .field("lastTransitionTime", Schema::time("When it last changed."))
                          .set("required", {"type", "status"}))
      .set("x-kubernetes-list-type", "map")
      .set("x-kubernetes-list-map-keys", Ordered::array({"type"}));
}

Schema epoch() {
  return Schema::object("The table of who holds which ranks: a number that grows at every start and restart.")
      .field("number", Schema::integer("Grows at every start and restart."))
      .field("term", Schema::integer("Of the leader that wrote it."))
      .field("port", Schema::integer("MASTER_PORT."))
      .field("resumeStep", Schema::integer("The step that is proposed to start from."))
      .field("resumePlace", word("Where that checkpoint lies: memory or durable."))
      .field("resumeClaim", Schema::integer("The claim of the epoch that wrote it."))
      .field("committed", Schema::time("When the epoch was written down."))
      .field("replay", Schema::object("A step that gave the same bits twice on one node, and they can't be right.")
                           .field("step", Schema::integer("The step."))
                           .field("rank", Schema::integer("Whose part of the batch it was."))
                           .field("node", word("Where it was computed first."))
                           .field("digest", word("Of what it computed there."))
                           .field("ranks", Schema::integer("Of the job then.")));
}

Schema slots() {
  return Schema::list("The epoch's table: which pod holds which ranks.",
                      Schema::object("One slot.")
                          .field("slot", Schema::integer("Its number."))
                          .field("serial", Schema::integer("The serial of the pod that holds it."))
                          .field("firstRank", Schema::integer("The first of its ranks."))
                          .field("podUid", word("The pod's UID."))
                          .field("node", word("The pod's node."))
                          .field("address", word("The launcher's address.")));
}

Schema pods() {
  return Schema::list("Reserved serials, each of which names a pod.",
                      Schema::object("One pod.")
                          .field("serial", Schema::integer("The last part of its name."))
                          .field("slot", Schema::integer("The slot it holds; a spare has none."))
                          .field("node", word("Where it is pinned or bound.")));
}

Schema progress() {
  return Schema::object("How far training is; live values come from metrics.")
      .field("step", Schema::integer("The newest step."))
      .field("totalSteps", Schema::integer("Steps in all."))
      .field("samples", Schema::integer("Samples seen."))
      .field("tokensPerSecond", Schema::number("The rate."))
      .field("loss", Schema::number("The newest loss."))
      .field("eta", Schema::time("When it will be done."))
      .field("updated", Schema::time("When this was written."));
}

Schema checkpoint() {
  return Schema::object("The newest checkpoints.")
      .field("durable", Schema::object("On storage.")
                            .field("step", Schema::integer("Its step."))
                            .field("time", Schema::time("When it was complete."))
                            .field("path", word("Its folder."))
                            .field("bytes", Schema::integer("Its size.")))
      .field("memory", Schema::object("In memory, complete with its copies.")
                           .field("step", Schema::integer("Its step."))
                           .field("time", Schema::time("When it was complete.")));
}

Schema goodput() {
  return Schema::object("Seconds of the job's wall time.")
      .field("ratio", Schema::number("training / (training + starting + restoring + stalled + redone)."))
      .field("training", Schema::number("New steps."))
      .field("starting", Schema::number("Until the first step, pods and processes included."))
      .field("restoring", Schema::number("Reading checkpoints."))
      .field("stalled", Schema::number("No progress."))
      .field("redone", Schema::number("Steps done again."))
      .field("queued", Schema::number("Waiting for room; not part of the ratio."));
}

Schema recovery() {
  return Schema::object("What happened, what was done about it, and what it cost.")
      .field("cause", cause())
      .field("rung", rung())
      .field("epoch", Schema::integer("The epoch that it led to."))
      .field("evidence", word("How it was known."))
      .field("node", word("Where."))
      .field("rank", Schema::integer("Which rank."))
      .field("stepsLost", Schema::integer("Steps that had to be done again."))
      .field("happened", Schema::time("As near as it is known."))
      .field("detected", Schema::time("When it was noticed."))
      .field("decided", Schema::time("When the new epoch was written down."))
      .field("ready", Schema::time("When every slot was bound and connected."))
      .field("restored", Schema::time("When the checkpoint was read."))
      .field("firstStep", Schema::time("When it was training again."));
}

Schema failure() {
  return Schema::object("A failure, counted for limits and for avoided nodes.")
      .field("time", Schema::time("When."))
      .field("cause", cause())
      .field("rung", rung())
      .field("node", word("Where."))
      .field("fingerprint", word("What failed and where, to know the same failure again."));
}

Schema request() {
  return Schema::object("An answer to an annotation pitcrew.dev/request-<verb>.")
      .field("id", word("The annotation's value."))
      .field("verb", word("What was asked for."))
      .field("state", word("Running, Done or Refused."))
      .field("message", word("What came of it."))
      .field("time", Schema::time("When."));
}

}  // namespace

Schema status_schema() {
  return Schema::object("What the job is doing, what happened to it, and what that cost. Written by the operator.")
      .field("phase", phase())
      .field("conditions", conditions())
      .field("epoch", epoch())
      .field("slots", slots())
      .field("pods", pods())
      .field("nextSerial", Schema::integer("The next pod's serial."))
      .field("replicas", Schema::object("Pods.")
                             .field("desired", Schema::integer("That should train."))
                             .field("ready", Schema::integer("That train."))
                             .field("spare", Schema::integer("That are ready to take over.")))
      .field("progress", progress())
      .field("checkpoint", checkpoint())
      .field("goodput", goodput())
      .field("restarts", Schema::object("Restarts since the job was created.")
                             .field("total", Schema::integer("All."))
                             .field("inPlace", Schema::integer("In the same pods."))
                             .field("replaced", Schema::integer("With a spare or a container started again."))
                             .field("recreated", Schema::integer("With new pods.")))
      .field("observedGeneration", Schema::integer("The generation of the spec that this is about."))
      .field("startTime", Schema::time("When it first trained."))
      .field("completionTime", Schema::time("When it ended."))
      .field("requests", Schema::list("The last ten requests of people.", request()))
      .field("recoveries", Schema::list("The last ten, newest first.", recovery()))
      .field("failures", Schema::list("Within the widest window.", failure()))
      .field("avoidedNodes", Schema::list("Nodes that failed too often for this job.", word("A node's name.")))
      .field("marks", Schema::map("Since when something has been so, by name.", Schema::time("Since when.")));
}

}  // namespace pitcrew::crd
