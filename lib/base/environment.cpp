#include "lib/base/environment.hpp"

namespace pitcrew {
namespace {

Result<Json> parse_object(std::string_view name, std::string_view text) {
  auto json = parse_json(text);
  if (!json) return json.error().with_context(name);
  return json;
}

Status check(std::string_view name, const Problems& problems) {
  if (problems.empty()) return {};
  return Error(Code::kInvalidArgument, std::string(name) + ": " + join(problems));
}

}  // namespace

Json to_json(const JobIdentity& job) {
  return {{"uid", job.uid}, {"namespace", job.ns}, {"name", job.name}, {"term", job.term.value}};
}

Result<JobIdentity> parse_job_identity(std::string_view text) {
  PITCREW_ASSIGN(const Json json, parse_object(environment::kJob, text));
  Problems problems;
  ObjectReader reader(json, "", problems);
  JobIdentity job;
  reader.read("uid", job.uid);
  reader.read("namespace", job.ns);
  reader.read("name", job.name);
  reader.read("term", job.term);
  PITCREW_TRY(check(environment::kJob, problems));
  return job;
}

std::string_view to_string(Place place) {
  switch (place) {
    case Place::kMemory:
      return "memory";
    case Place::kDurable:
      return "durable";
  }
  return "durable";
}

Json to_json(const ResumePoint& resume) {
  return {{"step", resume.step.value}, {"claim", resume.claim}, {"place", to_string(resume.place)}};
}

Result<ResumePoint> parse_resume_point(const Json& json) {
  Problems problems;
  ObjectReader reader(json, "resume", problems);
  ResumePoint resume;
  reader.read("step", resume.step);
  reader.read("claim", resume.claim);
  reader.read_enum("place", resume.place, {{"memory", Place::kMemory}, {"durable", Place::kDurable}});
  PITCREW_TRY(check(environment::kResume, problems));
  return resume;
}

Json to_json(const ReplayPoint& replay) {
  return {{"step", replay.step.value},
          {"rank", replay.rank.value},
          {"node", replay.node},
          {"digest", replay.digest},
          {"elsewhere", replay.elsewhere}};
}

Result<ReplayPoint> parse_replay_point(const Json& json) {
  Problems problems;
  ObjectReader reader(json, "replay", problems);
  ReplayPoint replay;
  reader.read("step", replay.step);
  reader.read("rank", replay.rank);
  reader.read("node", replay.node);
  reader.read("digest", replay.digest);
  reader.read("elsewhere", replay.elsewhere);
  PITCREW_TRY(check(environment::kReplay, problems));
  return replay;
}

Json to_json(const CheckpointSettings& settings) {
  Json json = {{"path", settings.path}, {"keep", settings.keep}};
  if (settings.every_steps) json["every"] = {{"steps", *settings.every_steps}};
  if (settings.every_time) json["every"] = {{"time", to_string(*settings.every_time)}};
  if (settings.every_auto) json["every"] = {{"auto", true}};
  if (settings.memory_steps) {
    json["memory"] = {{"every", {{"steps", *settings.memory_steps}}}, {"copies", settings.memory_copies}};
  }
  return json;
}

Result<CheckpointSettings> parse_checkpoint_settings(std::string_view text) {
  PITCREW_ASSIGN(const Json json, parse_object(environment::kCheckpoint, text));
  Problems problems;
  ObjectReader reader(json, "", problems);
  CheckpointSettings settings;
  reader.read("path", settings.path);
  reader.read("keep", settings.keep);
  if (auto every = reader.object("every")) {
    every->read("steps", settings.every_steps);
    every->read("time", settings.every_time);
    every->read("auto", settings.every_auto);
  }
  if (auto memory = reader.object("memory")) {
    if (auto every = memory->object("every")) every->read("steps", settings.memory_steps);
    memory->read("copies", settings.memory_copies);
  }
  PITCREW_TRY(check(environment::kCheckpoint, problems));
  return settings;
}

}  // namespace pitcrew
