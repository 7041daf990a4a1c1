#include "cli/job/status.hpp"

#include <algorithm>
#include <cmath>

#include "cli/connect/exit_code.hpp"
#include "cli/show/table.hpp"
#include "cli/show/words.hpp"

namespace pitcrew::cli {
namespace {

constexpr size_t kLabel = 15;  // where values begin
constexpr size_t kBar = 20;

Tone tone_of(api::Phase phase) {
  switch (phase) {
    case api::Phase::kRunning:
    case api::Phase::kSucceeded:
      return Tone::kGood;
    case api::Phase::kRecovering:
    case api::Phase::kPending:
    case api::Phase::kStarting:
      return Tone::kWarning;
    case api::Phase::kFailed:
      return Tone::kBad;
    case api::Phase::kSuspended:
      return Tone::kDim;
  }
  return Tone::kPlain;
}

std::string bar(double share) {
  const auto full = static_cast<size_t>(std::lround(std::clamp(share, 0.0, 1.0) * kBar));
  std::string out;
  for (size_t i = 0; i < kBar; ++i) out += i < full ? "█" : "░";
  return out;
}

std::string progress_line(const api::TrainingJob& job, Instant now) {
  const api::ProgressStatus& progress = job.status.progress;
  if (!progress.step) return "no step done yet";
  std::string text = "step " + grouped(progress.step->value);
  if (progress.total_steps > 0) {
    const double share = static_cast<double>(progress.step->value) / static_cast<double>(progress.total_steps);
    text += " of " + grouped(progress.total_steps) + "  " + bar(share) + " " + percent(share);
  }
  const bool running = job.status.phase == api::Phase::kRunning;
  if (progress.eta && running && *progress.eta > now) text += "  done in " + spoken(*progress.eta - now);
  return text;
}

std::string pace_line(const api::TrainingJob& job, Instant now) {
  const api::ProgressStatus& progress = job.status.progress;
  std::string text;
  const auto add = [&](const std::string& part) { text += (text.empty() ? "" : ", ") + part; };
  char loss[32];
  if (progress.tokens_per_second > 0) add(rate(progress.tokens_per_second) + " tokens/s");
  if (progress.loss) {
    std::snprintf(loss, sizeof loss, "loss %.4f", *progress.loss);
    add(loss);
  }
  if (progress.updated && !text.empty()) text += "  (as of " + ago(now, *progress.updated) + ")";
  return text;
}

std::string replicas_line(const api::TrainingJob& job) {
  const auto& status = job.status;
  std::string text = std::to_string(status.ready) + " of " + std::to_string(job.spec.replicas) + " connected";
  if (job.spec.spares > 0) text += ", " + std::to_string(status.spare) + " of " + count_of(job.spec.spares, "spare");
  if (status.epoch.number.value > 0)
    text +=
        "; epoch " + std::to_string(status.epoch.number.value) + ", term " + std::to_string(status.epoch.term.value);
  if (!status.avoided_nodes.empty()) text += "; avoids " + some_of(status.avoided_nodes);
  return text;
}

std::string checkpoint_line(const api::TrainingJob& job, Instant now) {
  if (!job.spec.checkpoint) return "none configured: a failure starts it from step 0";
  const auto& checkpoint = job.status.checkpoint;
  std::string text;
  if (checkpoint.durable_step) {
    text = "durable step " + grouped(checkpoint.durable_step->value);
    if (checkpoint.durable_time) text += ", " + ago(now, *checkpoint.durable_time);
    if (checkpoint.durable_bytes > 0) text += ", " + bytes(checkpoint.durable_bytes);
  } else {
    text = "no durable one yet";
  }
  if (checkpoint.memory_step) {
    text += "; in memory step " + grouped(checkpoint.memory_step->value);
    if (checkpoint.memory_time) text += ", " + ago(now, *checkpoint.memory_time);
  }
  return text;
}

std::string goodput_line(const api::GoodputStatus& goodput) {
  const double all = goodput.training + goodput.starting + goodput.restoring + goodput.stalled + goodput.redone;
  if (all <= 0)
    return goodput.queued > 0 ? "queued for " + spoken(from_seconds(goodput.queued)) : "nothing to count yet";
  std::string text = percent(goodput.ratio());
  const std::pair<const char*, double> parts[] = {{"training", goodput.training},   {"starting", goodput.starting},
                                                  {"restoring", goodput.restoring}, {"stalled", goodput.stalled},
                                                  {"redone", goodput.redone},       {"queued", goodput.queued}};
  const char* separator = "  ";
  for (const auto& [name, seconds] : parts) {
    if (seconds < 0.5) continue;
    text += separator + std::string(name) + " " + spoken(from_seconds(seconds));
    separator = " · ";
  }
  return text;
}

std::string restarts_line(const api::RestartsStatus& restarts) {
  if (restarts.total == 0) return "none";
  std::string text = std::to_string(restarts.total) + " in all";
  const std::pair<const char*, uint32_t> parts[] = {
      {"in place", restarts.in_place}, {"replaced", restarts.replaced}, {"recreated", restarts.recreated}};
  const char* separator = ": ";
  for (const auto& [name, count] : parts) {
    if (count == 0) continue;
    text += separator + std::to_string(count) + " " + name;
    separator = ", ";
  }
  return text;
}

std::string went_wrong(const api::Recovery& recovery, Instant now) {
  std::string text;
  if (recovery.detected) text = ago(now, *recovery.detected) + ": ";
  text += headline(recovery);
  if (const auto duration = took(recovery)) {
    text += "; training again after " + spoken(*duration);
  } else if (recovery.rung != api::Rung::kFailed) {
    text += "; not training yet";
  }
  if (recovery.steps_lost.value_or(0) > 0) text += ", " + count_of(*recovery.steps_lost, "step") + " done again";
  return text;
}

Duration in_phase(const api::TrainingJob& job, Instant now) {
  Instant since = job.metadata.creation_time.value_or(now);
  for (const Condition& condition : job.status.conditions) {
    if (condition.type != "Checkpointed") since = std::max(since, condition.last_transition);
  }
  return now - since;
}

}  // namespace

std::string waiting_for(const api::TrainingJob& job) {
  const auto& status = job.status;
  const auto words = [](const Condition& condition) {
    return condition.message.empty() ? condition.reason : condition.reason + ": " + condition.message;
  };
  if (status.phase == api::Phase::kRunning || status.phase == api::Phase::kSucceeded) return {};
  if (const Condition* failed = find_condition(status.conditions, "Failed"); failed != nullptr && failed->status)
    return words(*failed);
  if (status.phase == api::Phase::kSuspended) return "suspended: lifecycle.suspend is set";
  if (const Condition* admitted = find_condition(status.conditions, "Admitted");
      admitted != nullptr && !admitted->status)
    return words(*admitted);
  if (const Condition* running = find_condition(status.conditions, "Running"); running != nullptr && !running->status)
    return words(*running);
  if (status.observed_generation == 0) return "no operator has looked at it yet";
  if (status.phase == api::Phase::kStarting) return "pods and launchers are coming up";
  return {};
}

std::string headline(const api::Recovery& recovery) {
  std::string text(api::to_string(recovery.cause));
  if (recovery.rank) text += " of rank " + std::to_string(recovery.rank->value);
  if (!recovery.node.empty()) text += " on " + recovery.node;
  return text + " → " + std::string(api::to_string(recovery.rung));
}

std::optional<Duration> took(const api::Recovery& recovery) {
  const auto from = recovery.happened ? recovery.happened : recovery.detected;
  if (!from || !recovery.first_step) return std::nullopt;
  return *recovery.first_step - *from;
}

std::string print_status(const api::TrainingJob& job, Instant now, const Terminal& terminal, bool wide) {
  const auto& status = job.status;
  std::string out = terminal.paint(Tone::kBold, job.metadata.name) + " in " + job.metadata.ns + ": " +
                    terminal.paint(tone_of(status.phase), api::to_string(status.phase)) + " for " +
                    spoken(in_phase(job, now));
  if (status.start_time) out += ", started " + ago(now, *status.start_time);
  out += "\n\n";
  const auto line = [&](const std::string& label, const std::string& text, Tone tone = Tone::kPlain) {
    if (text.empty()) return;
    out += "  " + padded(label, kLabel - 3) + " " + terminal.paint(tone, hang(text, kLabel, terminal.width)) + "\n";
  };
  line(status.phase == api::Phase::kFailed ? "failed" : "waits for", waiting_for(job), tone_of(status.phase));
  line("progress", progress_line(job, now));
  line("pace", pace_line(job, now));
  line("replicas", replicas_line(job));
  line("checkpoints", checkpoint_line(job, now));
  if (wide && !status.checkpoint.durable_path.empty()) line("", status.checkpoint.durable_path);
  line("goodput", goodput_line(status.goodput));
  line("restarts", restarts_line(status.restarts));
  if (!status.recoveries.empty()) {
    const api::Recovery& last = status.recoveries.front();
    line("went wrong", went_wrong(last, now));
    line("", last.evidence, Tone::kDim);
  }
  for (const api::RequestStatus& request : status.requests) {
    if (request.state == "Running") line("asked for", request.verb + " (" + request.id + ")");
  }
  if (wide && !status.slots.empty()) {
    Table table({">SLOT", "POD", "NODE", ">FIRST RANK", "ADDRESS"});
    for (const api::SlotStatus& slot : status.slots) {
      table.add({{std::to_string(slot.slot.value)},
                 {api::pod_name(job, slot.serial)},
                 {slot.node},
                 {std::to_string(slot.first_rank.value)},
                 {slot.address.empty() ? "not connected" : slot.address}});
    }
    out += "\n" + table.render(terminal, 2);
  }
  return out;
}

Json status_document(const api::TrainingJob& job, Instant now) {
  const auto& status = job.status;
  Json document = {{"job", job.metadata.name},
                   {"namespace", job.metadata.ns},
                   {"uid", job.metadata.uid},
                   {"phase", api::to_string(status.phase)},
                   {"secondsInPhase", std::floor(to_seconds(in_phase(job, now)))},
                   {"replicas", {{"wanted", job.spec.replicas}, {"ready", status.ready}, {"spare", status.spare}}},
                   {"goodputRatio", status.goodput.ratio()}};
  if (const std::string why = waiting_for(job); !why.empty()) document["waitsFor"] = why;
  // The rest as the API has it: names that people know from kubectl.
  const Json encoded = job.encode();
  for (const char* key : {"epoch", "progress", "checkpoint", "goodput", "restarts", "recoveries", "requests"}) {
    const Json::json_pointer at(std::string("/status/") + key);
    if (encoded.contains(at)) document[key] = encoded.at(at);
  }
  return document;
}

std::string print_jobs(const std::vector<api::TrainingJob>& jobs, Instant now, const Terminal& terminal,
                       bool namespaces) {
  std::vector<std::string> headings{"NAME",     "PHASE",     ">READY", ">STEP", ">DONE",
                                    ">GOODPUT", ">RESTARTS", ">AGE",   "WHY"};
  if (namespaces) headings.insert(headings.begin(), "NAMESPACE");
  Table table(headings);
  for (const api::TrainingJob& job : jobs) {
    const auto& status = job.status;
    const auto& progress = status.progress;
    const uint64_t step = progress.step.value_or(Step(0)).value;
    std::vector<Table::Cell> row{
        {job.metadata.name},
        {std::string(api::to_string(status.phase)), tone_of(status.phase)},
        {std::to_string(status.ready) + "/" + std::to_string(job.spec.replicas)},
        {progress.step ? grouped(step) : "-"},
        {progress.total_steps > 0 ? percent(static_cast<double>(step) / static_cast<double>(progress.total_steps))
                                  : "-"},
        {status.goodput.training > 0 ? percent(status.goodput.ratio()) : "-"},
        {std::to_string(status.restarts.total)},
        {spoken(now - job.metadata.creation_time.value_or(now))},
        {waiting_for(job), Tone::kDim}};
    if (namespaces) row.insert(row.begin(), {job.metadata.ns});
    table.add(std::move(row));
  }
  return table.render(terminal);
}

int show_status(Cluster& cluster, const std::string& name, bool all_namespaces, Format format, const Terminal& terminal,
                std::ostream& out, std::ostream& err) {
  const bool as_document = format == Format::kJson || format == Format::kYaml;
  if (!name.empty()) {
    const auto job = cluster.job(name);
    if (!job) {
      err << "status " << name << ": " << job.error().message << "\n";
      return exit_code_of(job.error());
    }
    out << (as_document ? print_document(status_document(*job, cluster.now()), format)
                        : print_status(*job, cluster.now(), terminal, format == Format::kWide));
    return job->status.phase == api::Phase::kFailed ? kExitNo : kExitDone;
  }
  const auto items = cluster.list(api::TrainingJob::type(), {.ns = all_namespaces ? "" : cluster.ns()});
  if (!items) {
    err << "status: " << items.error().message << "\n";
    return exit_code_of(items.error());
  }
  std::vector<api::TrainingJob> jobs;
  Json documents = Json::array();
  for (const Json& item : *items) {
    Problems problems;
    jobs.push_back(api::decode_training_job(item, problems));
    documents.push_back(status_document(jobs.back(), cluster.now()));
  }
  if (as_document) {
    out << print_document(documents, format);
  } else if (jobs.empty()) {
    out << "no TrainingJobs in " << (all_namespaces ? "any namespace" : "namespace " + cluster.ns()) << "\n";
  } else {
    out << print_jobs(jobs, cluster.now(), terminal, all_namespaces);
  }
  return kExitDone;
}

}  // namespace pitcrew::cli
