#include "cli/job/timeline.hpp"

#include <algorithm>
#include <set>

#include "cli/connect/exit_code.hpp"
#include "cli/diagnose/gather.hpp"
#include "cli/job/status.hpp"
#include "cli/show/words.hpp"

namespace pitcrew::cli {
namespace {

void from_recoveries(const api::TrainingJob& job, std::vector<Moment>& moments) {
  for (const api::Recovery& recovery : job.status.recoveries) {
    const auto time = recovery.happened ? recovery.happened : recovery.detected;
    if (!time) continue;
    Moment moment{*time, "recovery", headline(recovery), {recovery.evidence}, true};
    if (const std::string phases = phases_of(recovery); !phases.empty()) moment.details.push_back(phases);
    if (const auto duration = took(recovery)) {
      std::string cost = "training again after " + spoken(*duration);
      if (recovery.steps_lost) cost += ", " + count_of(*recovery.steps_lost, "step") + " done again";
      moment.details.push_back(cost);
    }
    moments.push_back(std::move(moment));
  }
}

void from_conditions(const api::TrainingJob& job, std::vector<Moment>& moments) {
  for (const Condition& condition : job.status.conditions) {
    // Running follows from recoveries and events; the newest checkpoint is told from the status.
    if (condition.type == "Running" || condition.type == "Checkpointed") continue;
    if (condition.last_transition == Instant()) continue;
    const bool bad = condition.type == "Failed" ? condition.status : !condition.status;
    moments.push_back({condition.last_transition, "condition",
                       (condition.status ? condition.type : "not " + condition.type) + ": " + condition.reason,
                       condition.message.empty() ? std::vector<std::string>{} : std::vector{condition.message}, bad});
  }
}

void from_events(const Facts& facts, std::vector<Moment>& moments) {
  std::set<std::string> told;  // a recovery's event says what the recovery says
  for (const api::Recovery& recovery : facts.job.status.recoveries) told.insert(recovery.evidence);
  for (const EventFact& event : facts.events) {
    if (told.contains(event.note)) continue;
    std::string text = event.reason;
    if (!event.object.starts_with("TrainingJob/")) text += " " + event.object.substr(event.object.find('/') + 1);
    if (event.count > 1) text += " (" + std::to_string(event.count) + " times)";
    moments.push_back({event.time, "event", text, {event.note}, event.type == "Warning"});
  }
}

}  // namespace

std::string phases_of(const api::Recovery& recovery) {
  const std::pair<const char*, std::optional<Instant>> marks[] = {
      {"", recovery.happened},           {"unnoticed", recovery.detected}, {"deciding", recovery.decided},
      {"getting ready", recovery.ready}, {"restoring", recovery.restored}, {"first step", recovery.first_step}};
  std::string text;
  std::optional<Instant> before;
  for (const auto& [name, time] : marks) {
    if (!time) continue;
    if (before && *time - *before >= milliseconds(50)) {
      text += (text.empty() ? "" : " · ") + spoken(*time - *before) + " " + name;
    }
    before = time;
  }
  return text;
}

std::vector<Moment> timeline_of(const Facts& facts) {
  const api::TrainingJob& job = facts.job;
  std::vector<Moment> moments;
  if (job.metadata.creation_time) moments.push_back({*job.metadata.creation_time, "created", "created", {}, false});
  if (job.status.start_time) moments.push_back({*job.status.start_time, "started", "started", {}, false});
  from_recoveries(job, moments);
  from_conditions(job, moments);
  from_events(facts, moments);
  const auto& checkpoint = job.status.checkpoint;
  if (checkpoint.durable_step && checkpoint.durable_time) {
    moments.push_back(
        {*checkpoint.durable_time, "checkpoint",
         "newest durable checkpoint: step " + grouped(checkpoint.durable_step->value),
         checkpoint.durable_path.empty() ? std::vector<std::string>{} : std::vector{checkpoint.durable_path}, false});
  }
  for (const api::RequestStatus& request : job.status.requests) {
    if (!request.time) continue;
    moments.push_back({*request.time, "request", "asked for " + request.verb + ": " + request.state,
                       request.message.empty() ? std::vector<std::string>{} : std::vector{request.message},
                       request.state == "Refused"});
  }
  if (job.status.completion_time)
    moments.push_back({*job.status.completion_time,
                       "ended",
                       std::string(api::to_string(job.status.phase)),
                       {},
                       job.status.phase == api::Phase::kFailed});
  std::stable_sort(moments.begin(), moments.end(), [](const Moment& a, const Moment& b) { return a.time < b.time; });
  return moments;
}

std::string print_timeline(const Facts& facts, const Terminal& terminal) {
  const std::vector<Moment> moments = timeline_of(facts);
  size_t width = 9;
  for (const Moment& moment : moments) width = std::max(width, columns(clock_time(facts.now, moment.time)));
  std::string out = terminal.paint(Tone::kBold, facts.job.metadata.name) + " in " + facts.job.metadata.ns + ": " +
                    std::string(api::to_string(facts.job.status.phase)) + ", " +
                    count_of(facts.job.status.restarts.total, "restart") + "\n\n";
  for (const Moment& moment : moments) {
    out += padded(clock_time(facts.now, moment.time), width) + "  " +
           terminal.paint(moment.bad ? Tone::kBad : Tone::kPlain, hang(moment.text, width + 2, terminal.width)) + "\n";
    for (const std::string& detail : moment.details) {
      if (detail.empty()) continue;
      out += std::string(width + 4, ' ') + terminal.paint(Tone::kDim, hang(detail, width + 4, terminal.width)) + "\n";
    }
  }
  if (facts.job.status.recoveries.size() == 10)
    out += "\nOlder recoveries are not kept in the status; they are in the operator's log and in its metrics.\n";
  return out;
}

int show_timeline(Cluster& cluster, const std::string& job, Format format, const Terminal& terminal, std::ostream& out,
                  std::ostream& err) {
  const auto facts = gather(cluster, job, {.live = false, .log_lines = 0});
  if (!facts) {
    err << "timeline " << job << ": " << facts.error().message << "\n";
    return exit_code_of(facts.error());
  }
  if (format != Format::kJson && format != Format::kYaml) {
    out << print_timeline(*facts, terminal);
    return kExitDone;
  }
  Json document = Json::array();
  for (const Moment& moment : timeline_of(*facts)) {
    document.push_back({{"time", to_rfc3339(moment.time, 3)},
                        {"what", moment.what},
                        {"text", moment.text},
                        {"details", moment.details},
                        {"bad", moment.bad}});
  }
  out << print_document(document, format);
  return kExitDone;
}

}  // namespace pitcrew::cli
