#include <algorithm>
#include <sstream>

#include "lib/api/health_names.hpp"
#include "operator/decide/scenarios/stage.hpp"

namespace pitcrew::control {
namespace {

using namespace api::channel;

// A setting of a command, or what stands for it.
std::string words_of(const Command& command, const std::string& setting, const std::string& otherwise) {
  const auto found = command.settings.find(setting);
  return found == command.settings.end() ? otherwise : found->second;
}

uint64_t number(const std::string& text) { return std::strtoull(text.c_str(), nullptr, 10); }

Duration duration(const std::string& text) { return parse_duration(text).value_or(Duration{0}); }

api::Limit limit_of(const std::string& text) {
  const size_t slash = text.find('/');
  return {static_cast<uint32_t>(number(text)),
          slash == std::string::npos ? hours(1) : duration(text.substr(slash + 1))};
}

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, at);) parts.push_back(part);
  return parts;
}

}  // namespace

Status Stage::run(const Command& command) {
  const auto& words = command.words;
  if (words.empty()) return Error(Code::kInvalidArgument, "an empty command");
  const std::string& first = words[0];
  if (first == "look") return {};
  if (first == "job") return words.size() == 1 ? set_job(command) : job_command(command);
  if (first == "nodes") {
    for (size_t i = 1; i < words.size(); ++i) node(words[i]);
    return {};
  }
  if (first == "node") return node_command(command);
  if (first == "pods") return pods_start(command);
  if (first == "ranks") return words.at(1) == "finish" ? ranks_finish() : ranks_train(command);
  if (first == "rank") return rank_exits(command);
  if (first == "leader") return leader_changes(command);
  if (first == "quota") return set_quota(command);
  if (first == "api") {
    refused_ = words.at(1) == "refuses" ? words.at(2) : "";
    return {};
  }
  if (first == "budget") {
    has_budget_ = false;
    return {};
  }
  if (first == "others") {
    if (command.settings.contains("connected"))
      other_nodes_ = static_cast<uint32_t>(number(command.settings.at("connected")));
    other_silent_.clear();
    for (size_t i = 2; i < words.size(); ++i) other_silent_.push_back({words[i], now_});
    return {};
  }
  if (first == "slot" || first == "spare" || first == "pod") return target_command(command);
  return Error(Code::kInvalidArgument, "unknown command '" + first + "'");
}

Status Stage::set_job(const Command& command) {
  api::TrainingJobSpec& spec = job_.spec;
  for (const auto& [key, value] : command.settings) {
    if (key == "replicas")
      spec.replicas = static_cast<uint32_t>(number(value));
    else if (key == "spares")
      spec.spares = static_cast<uint32_t>(number(value));
    else if (key == "processes")
      shape_.processes = static_cast<uint32_t>(number(value));
    else if (key == "memory")
      spec.checkpoint->memory = api::MemoryTier{number(value), 1, std::nullopt};
    else if (key == "copies")
      spec.checkpoint->memory->copies = static_cast<uint32_t>(number(value));
    else if (key == "limit")
      spec.recovery.restarts = limit_of(value);
    else if (key == "inPlace")
      spec.recovery.in_place = limit_of(value);
    else if (key == "waitInPlace")
      spec.recovery.wait_in_place = duration(value);
    else if (key == "avoidAfter")
      spec.recovery.avoid_after_failures = static_cast<uint32_t>(number(value));
    else if (key == "avoidLimit")
      spec.recovery.avoid_limit = static_cast<uint32_t>(number(value));
    else if (key == "gangTimeout")
      spec.placement.gang_timeout = duration(value);
    else if (key == "activeDeadline")
      spec.lifecycle.active_deadline = duration(value);
    else if (key == "startDeadline")
      spec.lifecycle.start_deadline = duration(value);
    else if (key == "warnBefore")
      spec.lifecycle.warn_before = duration(value);
    else if (key == "ttl")
      spec.lifecycle.ttl_after_finished = duration(value);
    else if (key == "capacity")
      spec.placement.capacity = value == "Provision" ? api::CapacityMode::kProvision : api::CapacityMode::kExisting;
    else if (key == "cpu")
      shape_.requests["cpu"] = static_cast<int64_t>(number(value)) * 1000;
    else if (key == "failOnCode")
      spec.recovery.rules.push_back({{static_cast<int>(number(value))}, "", api::RuleAction::kFail});
    else if (key == "failOnLog")
      spec.recovery.rules.push_back({{}, value, api::RuleAction::kFail});
    else if (key == "restartOnCode")
      spec.recovery.rules.push_back({{static_cast<int>(number(value))}, "", api::RuleAction::kRestart});
    else
      return Error(Code::kInvalidArgument, "unknown setting of the job '" + key + "'");
  }
  return {};
}

Status Stage::job_command(const Command& command) {
  const std::string& verb = command.words[1];
  if (verb == "is" && command.words.at(2) == "suspended")
    job_.spec.lifecycle.suspend = true;
  else if (verb == "is" && command.words.at(2) == "resumed")
    job_.spec.lifecycle.suspend = false;
  else if (verb == "requests") {
    job_.metadata.annotations[api::annotation::kRequest + command.words.at(2)] = command.settings.at("id");
    return {};
  } else
    return Error(Code::kInvalidArgument, "unknown command of the job '" + verb + "'");
  ++job_.metadata.generation;
  return {};
}

kube::Node& Stage::node(const std::string& name) {
  const auto [entry, fresh] = nodes_.try_emplace(name);
  if (fresh) {
    entry->second.metadata.name = name;
    entry->second.allocatable = {{"cpu", 4000}};
    entry->second.conditions = {{"Ready", "True", "", "", now_}};
  }
  return entry->second;
}

Status Stage::set_quota(const Command& command) {
  auto quota = std::make_shared<kube::ResourceQuota>();
  quota->metadata.name = command.words.at(1);
  for (const auto& [line, amount] : command.settings) {
    const size_t slash = amount.find('/');
    quota->used[line] = static_cast<int64_t>(number(amount)) * 1000;
    quota->hard[line] = static_cast<int64_t>(number(amount.substr(slash + 1))) * 1000;
  }
  quotas_ = {std::move(quota)};
  return {};
}

Status Stage::node_command(const Command& command) {
  const std::string& name = command.words.at(1);
  const std::string& state = command.words.at(2);
  if (state == "gone")
    nodes_.erase(name);
  else if (state == "NotReady")
    node(name).conditions[0].status = "Unknown";
  else if (state == "Ready")
    node(name).conditions[0].status = "True";
  else if (state == "cordoned")
    node(name).unschedulable = true;
  else if (state == "uncordoned")
    node(name).unschedulable = false;
  else if (state == "tainted")
    node(name).taints.push_back({words_of(command, "key", "maintenance"), "", "NoSchedule"});
  else if (state == "labelled")
    node(name).metadata.labels[words_of(command, "key", "")] = words_of(command, "value", "");
  else if (state == "unhealthy" || state == "quarantined" || state == "well" || state == "verdict" || state == "rate")
    return health_command(command);
  else
    return Error(Code::kInvalidArgument, "unknown state of a node '" + state + "'");
  return {};
}

// node NAME verdict rule=R [action=A] [certain=yes] [device=D] [message=M]: in its NodeHealth alone
// node NAME quarantined rule=R: as its agent marks the Node, alone; node NAME unhealthy …: both
// node NAME well: neither any more; node NAME rate COUNTER per=N
Status Stage::health_command(const Command& command) {
  const std::string& name = command.words.at(1);
  const std::string& state = command.words.at(2);
  const std::string rule = words_of(command, "rule", "xid-79");
  api::NodeHealth& health = health_[name];
  health.spec.node_name = name;
  if (state == "well") {
    health.status.verdicts.clear();
    std::erase_if(node(name).taints, [](const kube::Taint& taint) { return taint.key == api::health::kUnhealthy; });
    node(name).metadata.labels.erase(api::health::kUnhealthy);
    node(name).unschedulable = false;
    return {};
  }
  if (state == "rate") {
    health.status.rates.push_back(
        {"rdmap0s29", command.words.at(3), static_cast<double>(number(words_of(command, "per", "1"))), now_});
    return {};
  }
  const std::string action = words_of(command, "action", "Replace");
  if (state != "quarantined") {
    std::erase_if(health.status.verdicts, [&](const api::HealthVerdict& verdict) { return verdict.rule == rule; });
    api::HealthVerdict& verdict = health.status.verdicts.emplace_back();
    verdict.rule = rule;
    verdict.device = words_of(command, "device", "");
    verdict.message = words_of(command, "message", "");
    verdict.certain = words_of(command, "certain", "") == "yes";
    verdict.severity = action == "None"      ? api::HealthSeverity::kInfo
                       : action == "Restart" ? api::HealthSeverity::kWarning
                                             : api::HealthSeverity::kFault;
    verdict.action = action == "None"      ? api::HealthAction::kNone
                     : action == "Restart" ? api::HealthAction::kRestart
                                           : api::HealthAction::kReplace;
    verdict.since = verdict.last = now_;
  }
  if (state == "verdict") return {};
  node(name).taints.push_back({api::health::kUnhealthy, "", "NoSchedule"});
  node(name).metadata.labels[api::health::kUnhealthy] = rule;
  node(name).unschedulable = true;
  return {};
}

Status Stage::pods_start(const Command& command) {
  for (auto& [serial, state] : pods_) {
    if (state.known || !state.pod->node_name.empty()) continue;
    if (command.words.size() > 2 &&
        std::find(command.words.begin() + 2, command.words.end(), std::to_string(serial)) == command.words.end())
      continue;
    kube::Pod& pod = change(state);
    pod.node_name = pod.required_node.empty() ? words_of(command, "on", "") : pod.required_node;
    pod.phase = kube::PodPhase::kRunning;
    pod.initializing.clear();
    pod.containers = {{.name = "train", .running = true, .ready = true}};
    hello(Serial(serial), state, {});
  }
  return {};
}

void Stage::hello(Serial serial, PodState& state, const Command& command) {
  Hello hello;
  hello.job_uid = job_.metadata.uid;
  hello.pod_name = state.pod->metadata.name;
  hello.pod_uid = state.pod->metadata.uid;
  hello.node = state.pod->node_name;
  hello.boot = "boot-" + std::to_string(state.boots);
  hello.address = "10.0.0." + std::to_string(serial.value);
  hello.peer_port = 7000 + serial.value;
  hello.seen = state.seen;
  hello.running = state.running;
  if (command.settings.contains("seen")) {
    const auto parts = split(command.settings.at("seen"), '/');
    hello.seen = {Term(number(parts.at(0))), EpochNumber(number(parts.at(1)))};
    state.seen = hello.seen;
  }
  if (command.settings.contains("held")) {
    for (const std::string& step : split(command.settings.at("held"), ','))
      hello.held.push_back({Step(number(step)), 1, Place::kMemory});
  }
  state.launcher.hello(hello, now_);
  state.known = true;
}

Stage::PodState* Stage::target(const std::vector<std::string>& words, size_t& next) {
  const auto by_serial = [&](Serial serial) -> PodState* {
    const auto found = pods_.find(serial.value);
    return found == pods_.end() ? nullptr : &found->second;
  };
  if (words[0] == "spare") {
    next = 1;
    for (const auto& record : job_.status.pods) {
      if (!record.slot) return by_serial(record.serial);
    }
    return nullptr;
  }
  next = 2;
  const uint32_t value = static_cast<uint32_t>(number(words.at(1)));
  if (words[0] == "pod") return by_serial(Serial(value));
  for (const auto& record : job_.status.pods) {
    if (record.slot == Slot(value)) return by_serial(record.serial);
  }
  return nullptr;
}

// Bound, and its kubelet says what a container of it waits for or does.
void Stage::hold_up(kube::Pod& pod, bool init, const Command& command) const {
  const auto setting = [&](const char* name) {
    return command.settings.contains(name) ? command.settings.at(name) : std::string();
  };
  pod.node_name = pod.required_node;
  kube::ContainerStatus container{.name = setting("container")};
  container.waiting_reason = setting("reason");
  if (!container.waiting_reason.empty()) container.waiting_message = setting("message");
  container.running = setting("state") == "running";
  if (container.running) container.started = now_;
  container.restarts = static_cast<int>(number(setting("restarts")));
  if (const uint64_t exit = number(setting("exit")); exit != 0)
    container.last_terminated = kube::Termination{static_cast<int>(exit), 0, "Error", setting("message"), now_};
  pod.initializing.clear();
  if (!init) {
    pod.containers = {container};
    return;
  }
  pod.initializing = {container};
  kube::ContainerStatus train{.name = "train"};
  train.waiting_reason = "PodInitializing";
  pod.containers = {train};
}

Status Stage::target_command(const Command& command) {
  size_t next = 0;
  PodState* state = target(command.words, next);
  if (state == nullptr) return Error(Code::kNotFound, "there is no such pod");
  std::string verb;
  for (size_t i = next; i < command.words.size(); ++i) verb += (verb.empty() ? "" : " ") + command.words[i];
  const auto setting = [&](const char* name) {
    return command.settings.contains(name) ? command.settings.at(name) : std::string();
  };
  const EpochId epoch = state->launcher.seen;

  if (verb == "falls silent")
    state->launcher.silent(now_);
  else if (verb == "is heard")
    state->launcher.heard();
  else if (verb == "closes")
    state->launcher.disconnected(now_, now_);
  else if (verb == "says hello") {
    for (auto& [serial, candidate] : pods_) {
      if (&candidate == state) hello(Serial(serial), candidate, command);
    }
  } else if (verb == "dies") {
    state->running = false;
    ++state->boots;
    state->launcher.disconnected(now_, now_);
  } else if (verb == "is seen dead") {
    kube::ContainerStatus& container = change(*state).containers.front();
    container.restarts++;
    container.last_terminated =
        kube::Termination{137, 9, setting("reason").empty() ? "Error" : setting("reason"), "", now_};
  } else if (verb.starts_with("cannot reach slot ")) {
    say(*state, Unreachable{epoch, Slot(static_cast<uint32_t>(number(command.words.back()))), 5});
  } else if (verb.starts_with("lost rank ")) {
    Progress progress = state->launcher.progress ? state->launcher.progress->message : Progress{};
    progress.epoch = epoch;
    progress.phase = "lost peer";
    progress.lost_peer = true;
    progress.lost_rank = Rank(static_cast<uint32_t>(number(command.words.back())));
    say(*state, progress);
  } else if (verb == "reports evidence") {
    Evidence evidence{epoch,
                      Rank(static_cast<uint32_t>(number(setting("rank")))),
                      setting("kind"),
                      setting("message"),
                      std::nullopt,
                      std::nullopt,
                      setting("digest")};
    if (!setting("step").empty()) evidence.step = Step(number(setting("step")));
    if (!setting("peer").empty()) evidence.peer = Rank(static_cast<uint32_t>(number(setting("peer"))));
    say(*state, evidence);
  } else if (verb == "stalls") {
    Stalled stalled{
        epoch, Step(number(setting("step"))), "training", static_cast<double>(number(setting("seconds"))), 30, {}, ""};
    for (const std::string& entry : split(setting("ranks"), ',')) {
      const auto parts = split(entry, ':');
      const bool in = parts.at(1) != "none";
      Stalled::Suspect suspect{Rank(static_cast<uint32_t>(number(parts.at(0)))), in ? number(parts.at(1)) : 0, in, {}};
      if (parts.size() > 2) suspect.gpu_behind = parts[2] == "gpu";
      stalled.ranks.push_back(suspect);
    }
    say(*state, stalled);
  } else if (verb == "has stopped") {
    state->running = false;
    say(*state, Stopped{epoch, true});
  } else if (verb == "has aborted") {
    state->running = false;
    say(*state, Aborted{epoch, true, ""});
  } else if (verb == "saved") {
    say(*state, Saved{epoch, Step(number(setting("step"))), true, "/checkpoints/step-" + setting("step") + "-c1", 1000,
                      setting("request")});
  } else if (verb == "sent stacks") {
    say(*state, Stacks{setting("request"), "#0 main"});
  } else if (verb == "is being deleted") {
    change(*state).metadata.deletion_time = now_;
  } else if (verb == "is gone") {
    for (const auto& [serial, candidate] : pods_) {
      if (&candidate == state) {
        pods_.erase(serial);
        break;
      }
    }
  } else if (verb == "ends") {
    kube::Pod& pod = change(*state);
    pod.phase = setting("reason").empty() ? kube::PodPhase::kSucceeded : kube::PodPhase::kFailed;
    pod.reason = setting("reason");
    state->launcher.disconnected(now_, now_);
  } else if (verb == "cannot be scheduled") {
    change(*state).unschedulable_message = setting("message");
  } else if (verb == "initializes" || verb == "is held up") {
    hold_up(change(*state), verb == "initializes", command);
  } else {
    return Error(Code::kInvalidArgument, "unknown command of a pod '" + verb + "'");
  }
  return {};
}

Status Stage::rank_exits(const Command& command) {
  const Rank rank(static_cast<uint32_t>(number(command.words.at(1))));
  const auto setting = [&](const char* name) {
    return command.settings.contains(name) ? command.settings.at(name) : std::string();
  };
  for (auto& [serial, state] : pods_) {
    for (const auto& row : job_.status.slots) {
      if (row.serial != Serial(serial) || rank.value < row.first_rank.value ||
          rank.value >= row.first_rank.value + shape_.processes)
        continue;
      Exited exit;
      exit.epoch = std::max(state.launcher.sent_epoch, state.launcher.seen);
      exit.rank = rank;
      exit.kind = setting("signal").empty() ? ExitKind::kExited : ExitKind::kSignaled;
      if (setting("oom") == "yes") exit.kind = ExitKind::kOom;
      if (!setting("absent").empty()) exit.kind = ExitKind::kStartFailed;
      exit.code = static_cast<int>(number(setting("signal").empty() ? setting("code") : setting("signal")));
      exit.reason = exit.kind == ExitKind::kOom ? "out of memory"
                    : exit.kind == ExitKind::kStartFailed
                        ? "could not start '" + setting("absent") + "': No such file or directory"
                    : setting("signal").empty() ? "exit code " + setting("code") +
                                                      (setting("exception").empty() ? "" : ": " + setting("exception"))
                                                : "killed by signal " + setting("signal");
      exit.exception = setting("exception");
      if (!setting("log").empty()) exit.last_lines = {setting("log")};
      exit.step = Step(number(setting("step")));
      exit.done = setting("done") == "yes";
      say(state, exit);
      return {};
    }
  }
  return Error(Code::kNotFound, "no pod of the table has rank " + std::to_string(rank.value));
}

Status Stage::ranks_train(const Command& command) {
  const auto setting = [&](const char* name) {
    return command.settings.contains(name) ? command.settings.at(name) : std::string();
  };
  const EpochId epoch{job_.status.epoch.term, job_.status.epoch.number};
  for (const auto& row : job_.status.slots) {
    const auto found = pods_.find(row.serial.value);
    if (found == pods_.end() || found->second.launcher.silent_since || !found->second.launcher.connected) continue;
    PodState& state = found->second;
    if (std::max(state.launcher.sent_epoch, state.launcher.seen) < epoch) continue;
    if (!setting("slot").empty() && row.slot != Slot(static_cast<uint32_t>(number(setting("slot"))))) continue;
    Progress progress;
    progress.epoch = epoch;
    progress.step = Step(number(setting("step")));
    progress.phase = setting("phase").empty() ? "training" : setting("phase");
    progress.total_steps = 1000;
    if (row.first_rank == Rank(0)) {
      if (!setting("memory").empty()) progress.memory_step = Step(number(setting("memory")));
      if (!setting("durable").empty()) progress.durable_step = Step(number(setting("durable")));
      progress.resumed_step = job_.status.epoch.resume_step;
      progress.resumed_source = job_.status.epoch.resume_step ? job_.status.epoch.resume_place : "none";
    }
    state.seen = epoch;
    state.running = true;
    say(state, progress);
  }
  return {};
}

Status Stage::ranks_finish() {
  for (const auto& row : job_.status.slots) {
    for (uint32_t i = 0; i < shape_.processes; ++i) {
      Command exit;
      exit.words = {"rank", std::to_string(row.first_rank.value + i), "exits"};
      exit.settings = {{"code", "0"}, {"done", "yes"}};
      PITCREW_TRY(rank_exits(exit));
    }
  }
  return {};
}

Status Stage::leader_changes(const Command& command) {
  term_ = Term(number(command.settings.at("term")));
  leading_since_ = now_;
  for (auto& [serial, state] : pods_) {
    state.launcher = {};
    state.known = false;
  }
  return {};
}

}  // namespace pitcrew::control
