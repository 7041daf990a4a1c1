#include "cli/run/history.hpp"

#include <algorithm>
#include <fstream>

namespace pitcrew::cli {
namespace {

std::optional<double> seconds_to_training(const api::Recovery& recovery) {
  if (!recovery.happened || !recovery.first_step) return std::nullopt;
  return to_seconds(*recovery.first_step - *recovery.happened);
}

std::string one_decimal(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.1f", value);
  return buffer;
}

Json fields_of(const api::Recovery& recovery) {
  Json json{{"event", "recovery"},
            {"epoch", recovery.epoch},
            {"cause", api::to_string(recovery.cause)},
            {"rung", api::to_string(recovery.rung)},
            {"evidence", recovery.evidence},
            {"node", recovery.node}};
  if (recovery.rank) json["rank"] = recovery.rank->value;
  if (recovery.steps_lost) json["stepsLost"] = *recovery.steps_lost;
  if (recovery.happened) json["happened"] = to_rfc3339(*recovery.happened, 6);
  if (recovery.detected) json["detected"] = to_rfc3339(*recovery.detected, 6);
  if (recovery.first_step) json["firstStep"] = to_rfc3339(*recovery.first_step, 6);
  if (const auto seconds = seconds_to_training(recovery)) json["secondsToTraining"] = *seconds;
  return json;
}

std::optional<api::Recovery> recovery_of(const Json& line) {
  Problems problems;
  ObjectReader reader(line, "", problems);
  std::string event, cause, rung;
  if (!reader.read("event", event) || event != "recovery") return std::nullopt;
  api::Recovery recovery;
  reader.read("epoch", recovery.epoch);
  reader.read("cause", cause);
  reader.read("rung", rung);
  for (int i = 0; i <= static_cast<int>(api::Cause::kUnknown); ++i) {
    if (api::to_string(static_cast<api::Cause>(i)) == cause) recovery.cause = static_cast<api::Cause>(i);
  }
  for (int i = 0; i <= static_cast<int>(api::Rung::kFailed); ++i) {
    if (api::to_string(static_cast<api::Rung>(i)) == rung) recovery.rung = static_cast<api::Rung>(i);
  }
  reader.read("evidence", recovery.evidence);
  reader.read("node", recovery.node);
  reader.read("stepsLost", recovery.steps_lost);
  reader.read("happened", recovery.happened);
  reader.read("detected", recovery.detected);
  reader.read("firstStep", recovery.first_step);
  return recovery;
}

struct LossRange {
  std::optional<double> first, last;
  uint64_t steps = 0;
};

LossRange read_losses(const std::string& file) {
  LossRange range;
  std::ifstream in(file);
  std::string line;
  while (std::getline(in, line)) {
    const auto json = parse_json(line);
    if (!json || !json->contains("bits") || json->contains("kind")) continue;  // cut short by a kill, or an evaluation
    double loss = 0;
    const auto found = json->find("loss");
    if (found == json->end()) continue;
    if (found->is_number()) {
      loss = found->get<double>();
    } else if (found->is_string()) {
      loss = std::strtod(found->get_ref<const std::string&>().c_str(), nullptr);
    }
    if (!range.first) range.first = loss;
    range.last = loss;
    ++range.steps;
  }
  return range;
}

}  // namespace

History::History(View& view, const std::string& file) : view_(view) {
  std::ifstream in(file);
  std::string line;
  while (std::getline(in, line)) {
    const auto json = parse_json(line);
    if (!json || !json->is_object()) continue;  // cut short by a kill
    if (const auto recovery = recovery_of(*json)) recoveries_[recovery->detected.value_or(Instant())] = *recovery;
  }
  file_ = std::fopen(file.c_str(), "ae");
}

History::~History() {
  if (file_ != nullptr) std::fclose(file_);
}

void History::note(Instant time, const std::string& text, Json fields) {
  view_.event(time, text, fields);
  if (file_ == nullptr) return;
  fields["time"] = to_rfc3339(time, 3);
  fields["message"] = text;
  std::fprintf(file_, "%s\n", fields.dump(-1, ' ', false, Json::error_handler_t::replace).c_str());
  std::fflush(file_);
}

void History::recovery(Instant time, const api::Recovery& recovery) {
  api::Recovery& known = recoveries_[recovery.detected.value_or(Instant())];
  const api::Recovery before = std::exchange(known, recovery);
  std::string where = recovery.node.empty() ? "" : " on " + recovery.node;
  if (recovery.rank) where = " of rank " + std::to_string(recovery.rank->value) + where;
  if (recovery.decided && !before.decided) {
    note(time,
         std::string(api::to_string(recovery.cause)) + where + " → " + std::string(api::to_string(recovery.rung)) +
             " (" + recovery.evidence + ")",
         fields_of(recovery));
  }
  // More is known of it than when it was decided: a step was computed on another node meanwhile.
  if (before.decided && recovery.evidence != before.evidence)
    note(time,
         "what is known of the " + std::string(api::to_string(recovery.cause)) + where + " now: " + recovery.evidence,
         fields_of(recovery));
  const auto seconds = seconds_to_training(recovery);
  if (!seconds || before.first_step) return;
  std::string text =
      "training again " + one_decimal(*seconds) + " s after the " + std::string(api::to_string(recovery.cause));
  if (recovery.steps_lost)
    text +=
        ", " + std::to_string(*recovery.steps_lost) + (*recovery.steps_lost == 1 ? " step" : " steps") + " done again";
  note(time, text, fields_of(recovery));
}

void History::status(Instant time, const api::TrainingJob& job) {
  const api::TrainingJobStatus& status = job.status;
  // Newest first in the status; told in the order in which they happened.
  for (auto recovery = status.recoveries.rbegin(); recovery != status.recoveries.rend(); ++recovery)
    this->recovery(time, *recovery);
  const std::string phase(api::to_string(status.phase));
  std::string reason;
  for (const Condition& condition : status.conditions) {
    const bool telling =
        (condition.type == "Failed" && condition.status) || (condition.type == "Admitted" && !condition.status);
    if (telling) reason = condition.reason + ": " + condition.message;
  }
  if (phase == phase_ && (reason == reason_ || reason.empty())) return;
  phase_ = phase;
  reason_ = reason;
  note(time, phase + (reason.empty() ? "" : " (" + reason + ")"),
       {{"event", "phase"}, {"phase", phase}, {"reason", reason}});
}

Json make_report(const api::TrainingJob& job, const Recoveries& recoveries, const std::string& steps_file) {
  const api::TrainingJobStatus& status = job.status;
  const LossRange losses = read_losses(steps_file);
  Json report{{"job", job.metadata.name},
              {"finished", status.phase == api::Phase::kSucceeded},
              {"phase", api::to_string(status.phase)},
              {"steps", std::max(losses.steps, status.progress.step ? status.progress.step->value : 0)},
              {"epochs", status.epoch.number.value},
              {"recoveries", Json::array()},
              {"goodput",
               {{"ratio", status.goodput.ratio()},
                {"training", status.goodput.training},
                {"starting", status.goodput.starting},
                {"restoring", status.goodput.restoring},
                {"stalled", status.goodput.stalled},
                {"redone", status.goodput.redone},
                {"queued", status.goodput.queued}}},
              {"loss", Json::object()}};
  for (const auto& [detected, recovery] : recoveries) {
    Json entry{{"cause", api::to_string(recovery.cause)},
               {"rung", api::to_string(recovery.rung)},
               {"epoch", recovery.epoch},
               {"evidence", recovery.evidence},
               {"node", recovery.node},
               {"secondsToTraining", nullptr},
               {"stepsLost", nullptr}};
    if (const auto seconds = seconds_to_training(recovery)) entry["secondsToTraining"] = *seconds;
    if (recovery.steps_lost) entry["stepsLost"] = *recovery.steps_lost;
    report["recoveries"].push_back(std::move(entry));
  }
  if (losses.first) report["loss"] = {{"first", *losses.first}, {"last", *losses.last}};
  return report;
}

std::string recovery_table(const Recoveries& recoveries) {
  std::string table;
  char row[256];
  std::snprintf(row, sizeof row, "  %-6s %-14s %-11s %-8s %10s %11s\n", "epoch", "cause", "rung", "node", "seconds",
                "steps lost");
  table += row;
  for (const auto& [detected, recovery] : recoveries) {
    const auto seconds = seconds_to_training(recovery);
    std::snprintf(row, sizeof row, "  %-6llu %-14s %-11s %-8s %10s %11s\n",
                  static_cast<unsigned long long>(recovery.epoch), std::string(api::to_string(recovery.cause)).c_str(),
                  std::string(api::to_string(recovery.rung)).c_str(),
                  recovery.node.empty() ? "-" : recovery.node.c_str(), seconds ? one_decimal(*seconds).c_str() : "-",
                  recovery.steps_lost ? std::to_string(*recovery.steps_lost).c_str() : "-");
    table += row;
  }
  return table;
}

}  // namespace pitcrew::cli
