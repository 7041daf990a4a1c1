#include "trainer/train/rank_environment.hpp"

#include <charconv>

namespace pitcrew::trainer {
namespace {

class Variables {
 public:
  explicit Variables(const std::function<const char*(const char*)>& get) : get_(get) {}

  std::optional<std::string> text(const char* name) const {
    const char* value = get_(name);
    if (value == nullptr || *value == '\0') return std::nullopt;
    return value;
  }
  template <typename Number>
  bool number(const char* name, Number& out) {
    const auto value = text(name);
    if (!value) return false;
    Number parsed{};
    const auto [end, error] = std::from_chars(value->data(), value->data() + value->size(), parsed);
    if (error != std::errc() || end != value->data() + value->size()) {
      problems.push_back({name, "'" + *value + "' is not a number that fits"});
      return false;
    }
    out = parsed;
    return true;
  }
  template <typename T>
  std::optional<T> parsed(const char* name, Result<T> (*parse)(std::string_view)) {
    const auto value = text(name);
    if (!value) return std::nullopt;
    auto result = parse(*value);
    if (result) return *std::move(result);
    problems.push_back({"", result.error().message});
    return std::nullopt;
  }

  Problems problems;

 private:
  const std::function<const char*(const char*)>& get_;
};

Result<ResumePoint> parse_resume_text(std::string_view text) {
  PITCREW_ASSIGN(const Json json, parse_json(text));
  return parse_resume_point(json);
}

Result<ReplayPoint> parse_replay_text(std::string_view text) {
  PITCREW_ASSIGN(const Json json, parse_json(text));
  return parse_replay_point(json);
}

}  // namespace

Result<RankEnvironment> read_rank_environment(const std::function<const char*(const char*)>& get) {
  Variables variables(get);
  RankEnvironment environment;
  variables.number("RANK", environment.rank);
  variables.number("WORLD_SIZE", environment.size);
  variables.number("LOCAL_RANK", environment.local_rank);
  variables.number("LOCAL_WORLD_SIZE", environment.local_size);
  variables.number("MASTER_PORT", environment.master_port);
  environment.master_address = variables.text("MASTER_ADDR").value_or(environment.master_address);
  if (environment.size == 0 || environment.rank >= environment.size) {
    variables.problems.push_back({"RANK", "must be below WORLD_SIZE; both are set by torchrun or the launcher"});
  }
  if (environment.local_size == 0 || environment.local_rank >= environment.local_size) {
    variables.problems.push_back({"LOCAL_RANK", "must be below LOCAL_WORLD_SIZE"});
  }
  if (environment.size > 1 && environment.master_port == 0) {
    variables.problems.push_back({"MASTER_PORT", "must be set where WORLD_SIZE is above 1"});
  }
  if (!variables.number("GROUP_RANK", environment.slot.value) && environment.local_size > 0) {
    environment.slot = Slot(environment.rank / environment.local_size);
  }
  if (auto job = variables.parsed(environment::kJob, parse_job_identity)) {
    environment.job = *std::move(job);
    environment.managed = true;
  } else {
    environment.job = {"standalone", "", "standalone", Term(0)};
  }
  variables.number(environment::kEpoch, environment.epoch.value);
  environment.checkpoint = variables.parsed(environment::kCheckpoint, parse_checkpoint_settings);
  environment.resume = variables.parsed(environment::kResume, parse_resume_text);
  environment.replay = variables.parsed(environment::kReplay, parse_replay_text);
  environment.memory = variables.text(environment::kMemory).value_or("");
  environment.progress = variables.text(environment::kProgress).value_or("");
  environment.launcher = variables.text(environment::kLauncher).value_or("");
  if (!variables.problems.empty()) return Error(Code::kInvalidArgument, "environment: " + join(variables.problems));
  return environment;
}

}  // namespace pitcrew::trainer
