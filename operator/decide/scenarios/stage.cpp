#include "operator/decide/scenarios/stage.hpp"

#include <algorithm>

#include "operator/decide/scenarios/trace.hpp"

namespace pitcrew::control {

using namespace api::channel;

Stage::Stage(Instant start) : now_(start), leading_since_(start - hours(1)) {
  job_.metadata.name = "job";
  job_.metadata.ns = "team";
  job_.metadata.uid = "abcde-1234";
  job_.metadata.generation = 1;
  job_.metadata.resource_version = "1";
  job_.metadata.creation_time = start;
  job_.spec.container = "train";
  job_.spec.checkpoint = api::CheckpointSpec{"/checkpoints", api::Interval{500, std::nullopt}, std::nullopt, 3};
  job_.status.next_serial = Serial(0);
  shape_.requests = {{"cpu", 4000}};
}

kube::Pod& Stage::change(PodState& state) {
  state.pod = std::make_shared<kube::Pod>(*state.pod);
  return *state.pod;
}

Snapshot Stage::snapshot() const {
  Snapshot snapshot;
  snapshot.job = std::make_shared<api::TrainingJob>(job_);
  auto nodes = std::make_shared<std::vector<NodeView>>();
  for (const auto& [name, node] : nodes_) {
    NodeView& view = nodes->emplace_back(NodeView{std::make_shared<kube::Node>(node), node.allocatable, nullptr});
    if (const auto health = health_.find(name); health != health_.end())
      view.health = std::make_shared<api::NodeHealth>(health->second);
  }
  std::map<std::string, std::pair<uint32_t, std::optional<Instant>>> heard;
  for (const auto& [serial, state] : pods_) {
    snapshot.pods.push_back({Serial(serial), state.pod});
    const std::string& node = state.pod->node_name.empty() ? state.pod->required_node : state.pod->node_name;
    for (NodeView& view : *nodes) {
      if (view.node->metadata.name == node && !state.pod->ended()) {
        for (const auto& [resource, amount] : shape_.requests) view.free[resource] -= amount;
      }
    }
    if (!state.known) continue;
    snapshot.launchers.push_back(state.launcher);
    auto& [answering, silent] = heard[state.launcher.node];
    if (state.launcher.silent_since)
      silent = std::max(silent.value_or(Instant{}), *state.launcher.silent_since);
    else
      ++answering;
  }
  for (const auto& [node, state] : heard) {
    if (state.first > 0)
      ++snapshot.connected_nodes;
    else if (state.second && now_ - *state.second < minutes(10))
      snapshot.silent_nodes.push_back({node, *state.second});
  }
  snapshot.connected_nodes += other_nodes_;
  for (const SilentNode& node : other_silent_) snapshot.silent_nodes.push_back(node);
  snapshot.nodes = nodes;
  snapshot.shape = shape_;
  snapshot.term = term_;
  snapshot.leading_since = leading_since_;
  snapshot.has_budget = has_budget_;
  snapshot.quotas = quotas_;
  snapshot.pod_refused = refused_;
  return snapshot;
}

void Stage::apply(const Plan& plan) {
  if (plan.status) {
    job_.status = *plan.status;
    job_.metadata.resource_version = std::to_string(++version_);
  }
  if (plan.create_budget) has_budget_ = true;
  if (plan.delete_job) job_.metadata.deletion_time = now_;
  for (const CreatePod& create : plan.creates) {
    if (!refused_.empty()) break;
    PodState state;
    state.pod = std::make_shared<kube::Pod>();
    state.pod->metadata.name = api::pod_name(job_, create.serial);
    state.pod->metadata.uid = "uid-" + std::to_string(create.serial.value) + "-" + std::to_string(++version_);
    state.pod->required_node = create.node;
    pods_[create.serial.value] = std::move(state);
  }
  for (const DeletePod& gone : plan.deletes) {
    std::erase_if(pods_, [&](const auto& entry) { return entry.second.pod->metadata.uid == gone.uid; });
  }
  for (const SendMessage& send : plan.messages) {
    for (auto& [serial, state] : pods_) {
      if (state.pod->metadata.uid != send.pod_uid) continue;
      state.launcher.sent(send.message);
      if (const auto* stop = std::get_if<Stop>(&send.message); stop != nullptr && !stop->save) {
        state.running = false;
        say(state, Aborted{state.launcher.seen, true, ""});
      }
      if (std::holds_alternative<Finish>(send.message)) {
        change(state).phase = kube::PodPhase::kSucceeded;
        state.launcher.disconnected(now_, now_);
      }
    }
  }
}

std::vector<std::string> Stage::settle() {
  std::vector<std::string> lines;
  for (int round = 0; round < 30; ++round) {
    const Plan plan = decide(snapshot(), now_);
    wake_ = plan.wake;
    const std::vector<std::string> said = trace_of(job_, plan);
    lines.insert(lines.end(), said.begin(), said.end());
    if (!plan.acts()) {
      if (plan.waiting != waiting_ && !plan.waiting.empty()) lines.push_back("waits: " + plan.waiting);
      waiting_ = plan.waiting;
      return lines;
    }
    apply(plan);
    if (!refused_.empty() && !plan.creates.empty()) return lines;  // tried again later, with a back-off
  }
  lines.push_back("DOES NOT SETTLE");
  return lines;
}

std::vector<std::string> Stage::advance(Instant time) {
  std::vector<std::string> lines;
  const Instant start = now_;
  for (int rounds = 0; wake_ && *wake_ < time; ++rounds) {
    if (*wake_ <= now_ && rounds > 1000) {
      lines.push_back("WAKES WITHOUT END");
      break;
    }
    now_ = std::max(now_, *wake_);
    wake_.reset();
    for (std::string& line : settle())
      lines.push_back("(+" + to_string(std::chrono::duration_cast<milliseconds>(now_ - start)) + ") " + line);
  }
  now_ = time;
  return lines;
}

}  // namespace pitcrew::control
