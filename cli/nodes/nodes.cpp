#include "cli/nodes/nodes.hpp"

#include <algorithm>
#include <set>

#include "cli/connect/exit_code.hpp"
#include "cli/show/table.hpp"
#include "cli/show/words.hpp"
#include "lib/net/crypto.hpp"

namespace pitcrew::cli {
namespace {

constexpr char kGpu[] = "nvidia.com/gpu";
constexpr char kInstanceType[] = "node.kubernetes.io/instance-type";
constexpr char kRequestCheck[] = "pitcrew.dev/request-check";
constexpr Duration kLookEvery = seconds(1);

const api::NodeHealth* health_of(const FleetFacts& facts, const kube::Node& node) {
  for (const api::NodeHealth& health : facts.health) {
    // A NodeHealth outlives its node: the instance counts, not the name.
    const bool same = !node.provider_id.empty() ? health.spec.provider_id == node.provider_id
                                                : health.spec.node_uid == node.metadata.uid;
    if (same) return &health;
  }
  return nullptr;
}

int64_t gpus(const kube::Resources& resources) {
  const auto found = resources.find(kGpu);
  return found == resources.end() ? 0 : found->second / 1000;
}

const kube::NodeCondition* ready_condition(const kube::Node& node) {
  for (const kube::NodeCondition& condition : node.conditions) {
    if (condition.type == "Ready") return &condition;
  }
  return nullptr;
}

std::string word_of(api::CheckOutcome outcome) {
  if (outcome == api::CheckOutcome::kPassed) return "passed";
  return outcome == api::CheckOutcome::kFailed ? "FAILED" : "no result";
}

const api::HealthVerdict* worst(const api::NodeHealth& health) {
  const auto& verdicts = health.status.verdicts;
  const auto found = std::max_element(verdicts.begin(), verdicts.end(),
                                      [](const auto& a, const auto& b) { return a.severity < b.severity; });
  return found == verdicts.end() ? nullptr : &*found;
}

NodeRow row_of(const FleetFacts& facts, const kube::Node& node) {
  NodeRow row;
  row.name = node.metadata.name;
  if (const auto type = node.metadata.labels.find(kInstanceType); type != node.metadata.labels.end())
    row.instance = type->second;
  row.gpus = gpus(node.allocatable);
  std::set<std::string> jobs;
  for (const kube::Pod& pod : facts.pods) {
    if (pod.node_name != node.metadata.name || pod.ended()) continue;
    row.gpus_used += gpus(pod.requests);
    const auto job = pod.metadata.labels.find(api::label::kJob);
    if (job != pod.metadata.labels.end()) jobs.insert(pod.metadata.ns + "/" + job->second);
  }
  row.jobs.assign(jobs.begin(), jobs.end());
  const auto blame = [&](std::string state, std::string why) {
    row.state = std::move(state);
    if (row.why.empty()) row.why = std::move(why);
    row.usable = false;
  };
  row.state = "Ready";
  for (const kube::Taint& taint : node.taints) {
    if (taint.effect != "PreferNoSchedule" && taint.key != kGpu && !taint.key.starts_with("node.kubernetes.io/"))
      blame("Tainted", taint.key + (taint.value.empty() ? "" : "=" + taint.value));
  }
  if (node.unschedulable) blame("Cordoned", "");
  if (const kube::NodeCondition* ready = ready_condition(node); ready == nullptr || ready->status != "True") {
    row.why = ready == nullptr ? "no kubelet has spoken" : ready->message;
    blame(ready != nullptr && ready->status == "False" ? "NotReady" : "Silent", "");
  }
  row.health = "-";
  if (const api::NodeHealth* health = health_of(facts, node)) {
    row.health = "healthy";
    if (const api::HealthVerdict* verdict = worst(*health)) {
      row.health = verdict->rule;
      row.why = verdict->message;
    }
    if (!health->status.healthy) row.usable = false;
  }
  return row;
}

std::string summary(const std::vector<NodeRow>& rows) {
  int64_t usable = 0, all = 0, used = 0, usable_gpus = 0;
  for (const NodeRow& row : rows) {
    usable += row.usable ? 1 : 0;
    all += row.gpus;
    used += row.gpus_used;
    usable_gpus += row.usable ? row.gpus : 0;
  }
  std::string text = std::to_string(usable) + " of " + count_of(rows.size(), "node") + " usable";
  if (all > 0) {
    text += "; GPUs: " + std::to_string(all) + ", " + std::to_string(used) + " asked for, " +
            std::to_string(all - usable_gpus) + " on unusable nodes";
  }
  return text;
}

int refuse(std::ostream& err, const std::string& command, const Error& error) {
  err << command << ": " << error.message << "\n";
  return exit_code_of(error);
}

Result<FleetFacts> gather_fleet(Cluster& cluster) {
  FleetFacts facts;
  facts.now = cluster.now();
  std::optional<Error> failed;
  cluster.list_later(kube::Node::type(), {}, [&](Result<std::vector<Json>> items) {
    if (!items) {
      failed = items.error();
      return;
    }
    for (const Json& item : *items) {
      if (auto node = kube::Node::decode(item)) facts.nodes.push_back(*std::move(node));
    }
  });
  cluster.list_later(api::NodeHealth::type(), {}, [&](Result<std::vector<Json>> items) {
    if (!items) {
      if (items.error().code != Code::kNotFound) facts.unseen.push_back("node health: " + items.error().message);
      return;
    }
    for (const Json& item : *items) {
      Problems problems;
      facts.health.push_back(api::decode_node_health(item, problems));
    }
  });
  cluster.list_later(kube::Pod::type(), {}, [&](Result<std::vector<Json>> items) {
    if (!items) {
      facts.unseen.push_back("pods of all namespaces, so what is free: " + items.error().message);
      return;
    }
    for (const Json& item : *items) {
      if (auto pod = kube::Pod::decode(item)) facts.pods.push_back(*std::move(pod));
    }
  });
  cluster.wait();
  if (failed) return *failed;
  return facts;
}

Json document_of(const std::vector<NodeRow>& rows) {
  Json list = Json::array();
  for (const NodeRow& row : rows) {
    list.push_back({{"name", row.name},
                    {"instanceType", row.instance},
                    {"state", row.state},
                    {"health", row.health},
                    {"usable", row.usable},
                    {"gpus", row.gpus},
                    {"gpusAskedFor", row.gpus_used},
                    {"jobs", row.jobs},
                    {"why", row.why}});
  }
  return list;
}

}  // namespace

std::vector<NodeRow> rows_of(const FleetFacts& facts) {
  std::vector<NodeRow> rows;
  for (const kube::Node& node : facts.nodes) rows.push_back(row_of(facts, node));
  std::sort(rows.begin(), rows.end(),
            [](const NodeRow& a, const NodeRow& b) { return std::tie(a.usable, a.name) < std::tie(b.usable, b.name); });
  return rows;
}

std::string print_nodes(const FleetFacts& facts, const Terminal& terminal, bool wide) {
  const std::vector<NodeRow> rows = rows_of(facts);
  std::vector<std::string> headings{"NODE", "STATE", "HEALTH", ">GPUS", ">ASKED", "JOBS", "WHY"};
  if (wide) headings.insert(headings.begin() + 1, "INSTANCE");
  Table table(headings);
  for (const NodeRow& row : rows) {
    const Tone tone = row.usable ? Tone::kGood : Tone::kBad;
    std::vector<Table::Cell> cells{{row.name},
                                   {row.state, row.state == "Ready" ? Tone::kGood : Tone::kBad},
                                   {row.health, row.health == "healthy" || row.health == "-" ? Tone::kDim : tone},
                                   {std::to_string(row.gpus)},
                                   {std::to_string(row.gpus_used)},
                                   {row.jobs.empty() ? "-" : some_of(row.jobs, wide ? 8 : 1)},
                                   {row.why, Tone::kDim}};
    if (wide) cells.insert(cells.begin() + 1, {row.instance.empty() ? "-" : row.instance});
    table.add(std::move(cells));
  }
  std::string out = table.render(terminal) + "\n" + summary(rows) + "\n";
  for (const std::string& what : facts.unseen) out += "not seen: " + what + "\n";
  return out;
}

std::string print_node(const FleetFacts& facts, const std::string& name, const Terminal& terminal) {
  const auto node = std::find_if(facts.nodes.begin(), facts.nodes.end(),
                                 [&](const kube::Node& one) { return one.metadata.name == name; });
  if (node == facts.nodes.end()) return {};
  const NodeRow row = row_of(facts, *node);
  std::string out = terminal.paint(Tone::kBold, name) + ": " +
                    terminal.paint(row.usable ? Tone::kGood : Tone::kBad, row.state) + ", " +
                    (row.health == "-" ? "no agent" : row.health) + "\n";
  const auto line = [&](const std::string& label, const std::string& text) {
    if (!text.empty()) out += "  " + padded(label, 9) + " " + hang(text, 12, terminal.width) + "\n";
  };
  line("instance", row.instance + (node->provider_id.empty() ? "" : " " + node->provider_id));
  line("GPUs", std::to_string(row.gpus) + ", asked for by pods: " + std::to_string(row.gpus_used));
  line("jobs", some_of(row.jobs, 20));
  for (const kube::Taint& taint : node->taints)
    line("taint", taint.key + (taint.value.empty() ? "" : "=" + taint.value) + ":" + taint.effect);
  for (const kube::NodeCondition& condition : node->conditions) {
    const bool good = condition.type == "Ready" || condition.type == "PitcrewHealthy" ? condition.status == "True"
                                                                                      : condition.status == "False";
    if (!good)
      line("condition", condition.type + "=" + condition.status + " since " +
                            clock_time(facts.now, condition.last_transition) + ": " + condition.message);
  }
  const api::NodeHealth* health = health_of(facts, *node);
  if (health == nullptr) return out;
  if (health->status.needs != api::HealthAction::kNone)
    line("needs", std::string(api::to_string(health->status.needs)));
  for (const api::HealthVerdict& verdict : health->status.verdicts) {
    line("verdict", verdict.rule + (verdict.device.empty() ? "" : " on " + verdict.device) + ", " +
                        std::string(api::to_string(verdict.severity)) + ", " + count_of(verdict.count, "time") +
                        " since " + clock_time(facts.now, verdict.since) + ": " + verdict.message);
  }
  for (const api::CheckResult& check : health->status.checks) {
    line("check", clock_time(facts.now, check.time) + " " + check.test + ": " + word_of(check.outcome) +
                      (check.message.empty() ? "" : ": " + check.message));
  }
  const auto& history = health->status.history;
  for (size_t i = history.size() > 10 ? history.size() - 10 : 0; i < history.size(); ++i) {
    line("history", clock_time(facts.now, history[i].time) + " " + std::string(api::to_string(history[i].change)) +
                        " " + history[i].rule + ": " + history[i].message);
  }
  return out;
}

int show_nodes(Cluster& cluster, const std::string& node, Format format, const Terminal& terminal, std::ostream& out,
               std::ostream& err) {
  auto facts = gather_fleet(cluster);
  if (!facts) return refuse(err, "nodes", facts.error());
  if (!node.empty()) {
    std::erase_if(facts->nodes, [&](const kube::Node& one) { return one.metadata.name != node; });
    if (facts->nodes.empty()) {
      err << "nodes " << node << ": there is no such node; see what there is: pitcrew nodes\n";
      return kExitNotFound;
    }
  }
  if (format == Format::kJson || format == Format::kYaml) {
    out << print_document(document_of(rows_of(*facts)), format);
  } else if (!node.empty()) {
    out << print_node(*facts, node, terminal);
  } else {
    out << print_nodes(*facts, terminal, format == Format::kWide);
  }
  return kExitDone;
}

int check_node(Cluster& cluster, const std::string& name, Duration patience, std::ostream& out, std::ostream& err) {
  const std::string command = "check node " + name;
  const auto facts = gather_fleet(cluster);
  if (!facts) return refuse(err, command, facts.error());
  const auto node = std::find_if(facts->nodes.begin(), facts->nodes.end(),
                                 [&](const kube::Node& one) { return one.metadata.name == name; });
  if (node == facts->nodes.end()) {
    err << command << ": there is no such node; see what there is: pitcrew nodes\n";
    return kExitNotFound;
  }
  const api::NodeHealth* health = health_of(*facts, *node);
  if (health == nullptr) {
    err << command << ": its node agent has written no NodeHealth; is pitcrew-agent running there? "
        << "kubectl get pods -A -o wide --field-selector spec.nodeName=" << name << "\n";
    return kExitNotFound;
  }
  const NodeRow row = row_of(*facts, *node);
  if (!row.jobs.empty()) {
    err << command
        << ": a check needs all GPUs of the node and never runs beside a job; on it now: " << some_of(row.jobs) << "\n";
    return kExitNo;
  }
  const std::string id = "cli-" + net::hex(net::random_bytes(6));
  const auto asked = cluster.merge(api::NodeHealth::type(), health->metadata.key(),
                                   {{"metadata", {{"annotations", {{kRequestCheck, id}}}}}});
  if (!asked) return refuse(err, command, asked.error());
  err << "asked for a check of " << name << " (" << id << "); waiting for its result\n";
  for (const Instant until = cluster.now() + patience; cluster.now() < until;) {
    if (!cluster.pause(kLookEvery)) break;
    const auto json = cluster.get(api::NodeHealth::type(), health->metadata.key());
    if (!json) return refuse(err, command, json.error());
    Problems problems;
    const api::NodeHealth now = api::decode_node_health(*json, problems);
    bool found = false;
    for (const api::CheckResult& check : now.status.checks) {
      if (check.id != id) continue;
      found = true;
      out << word_of(check.outcome) << "  " << check.test << (check.message.empty() ? "" : "  " + check.message)
          << "\n";
    }
    if (found) return api::checked(now.status) == api::CheckOutcome::kPassed ? kExitDone : kExitNo;
  }
  err << command << ": no result within " << to_string(patience)
      << "; it is done as soon as the node is free. Look again: "
      << "pitcrew nodes " << name << "\n";
  return kExitTooLate;
}

}  // namespace pitcrew::cli
