#include "cli/diagnose/gather.hpp"

#include <algorithm>
#include <functional>
#include <map>
#include <set>

#include "cli/connect/resource_types.hpp"
#include "cli/diagnose/judge.hpp"
#include "cli/logs/log_lines.hpp"
#include "lib/kube/types/lease.hpp"
#include "lib/kube/types/pod.hpp"

namespace pitcrew::cli {
namespace {

constexpr char kLease[] = "pitcrew-operator";
constexpr char kAgents[] = "app.kubernetes.io/name=pitcrew,app.kubernetes.io/component=agent";
constexpr size_t kMaxEvents = 200;

// "list leases: forbidden" and so on, short.
void unseen(Facts& facts, const std::string& what, const Error& error) {
  if (error.code == Code::kNotFound) return;  // of a version or an add-on that isn't installed
  facts.unseen.push_back(what + " (" + error.message + ")");
}

template <typename T>
Cluster::Then<std::vector<Json>> decoded(Facts& facts, std::vector<T>& into, const std::string& what,
                                         bool* known = nullptr) {
  return [&facts, &into, what, known](Result<std::vector<Json>> items) {
    if (!items) return unseen(facts, what, items.error());
    if (known != nullptr) *known = true;
    for (const Json& item : *items) {
      auto object = T::decode(item);
      if (object) {
        into.push_back(*std::move(object));
      } else {
        unseen(facts, "one of the " + what, object.error());
      }
    }
  };
}

void ask_for_events(Cluster& cluster, Facts& facts, std::vector<EventFact>& events) {
  cluster.list_later(types::events(), {.ns = cluster.ns()}, [&](Result<std::vector<Json>> items) {
    if (!items) return unseen(facts, "events", items.error());
    for (const Json& item : *items) {
      if (auto event = read_event(item)) events.push_back(*std::move(event));
    }
  });
}

void ask_for_leases(Cluster& cluster, Facts& facts) {
  cluster.list_later(kube::Lease::type(), {.field_selector = std::string("metadata.name=") + kLease},
                     [&](Result<std::vector<Json>> items) {
                       if (!items) return unseen(facts, "who leads", items.error());
                       facts.operators_known = true;
                       for (const Json& item : *items) {
                         const auto lease = kube::Lease::decode(item);
                         if (!lease || lease->metadata.name != kLease) continue;
                         facts.operators.push_back(
                             {lease->metadata.ns, lease->holder, seconds(lease->duration_seconds), lease->renewed});
                       }
                     });
}

// Of all namespaces, where they may be read; it only explains who has the room.
void ask_for_other_jobs(Cluster& cluster, Facts& facts) {
  cluster.list_later(api::TrainingJob::type(), {}, [&facts](Result<std::vector<Json>> items) {
    if (!items) return;
    for (const Json& item : *items) {
      Problems problems;
      const api::TrainingJob other = api::decode_training_job(item, problems);
      if (other.metadata.uid == facts.job.metadata.uid || api::terminal(other.status.phase)) continue;
      facts.other_jobs.push_back({other.metadata.ns, other.metadata.name,
                                  std::string(api::to_string(other.status.phase)),
                                  static_cast<uint32_t>(other.status.pods.size())});
    }
  });
}

// Of the job, of its pods (those that are gone too: their names begin alike) and of the claims they mount.
std::vector<EventFact> of_the_job(const Facts& facts, std::vector<EventFact> events) {
  const std::string& name = facts.job.metadata.name;
  const std::string pods = "Pod/" + name + "-" + facts.job.metadata.uid.substr(0, 5) + "-";
  std::set<std::string> claims;
  for (const ClaimFact& claim : facts.claims) claims.insert("PersistentVolumeClaim/" + claim.name);
  std::erase_if(events, [&](const EventFact& event) {
    return event.object != "TrainingJob/" + name && !event.object.starts_with(pods) && !claims.contains(event.object);
  });
  std::stable_sort(events.begin(), events.end(),
                   [](const EventFact& a, const EventFact& b) { return a.time < b.time; });
  if (events.size() > kMaxEvents) events.erase(events.begin(), events.end() - kMaxEvents);
  return events;
}

std::set<std::string> claims_of(const Facts& facts) {
  std::set<std::string> names;
  for (const PodFact& pod : facts.pods) names.insert(pod.claims.begin(), pod.claims.end());
  const Json::json_pointer volumes("/spec/volumes");
  const Json& pod = facts.job.spec.pod_template;
  if (!pod.contains(volumes) || !pod.at(volumes).is_array()) return names;
  for (const Json& volume : pod.at(volumes)) {
    const Json::json_pointer claim("/persistentVolumeClaim/claimName");
    if (volume.contains(claim) && volume.at(claim).is_string()) names.insert(volume.at(claim).get<std::string>());
  }
  return names;
}

void ask_for_claims(Cluster& cluster, Facts& facts) {
  for (const std::string& name : claims_of(facts)) {
    cluster.get_later(types::claims(), {cluster.ns(), name}, [&facts, name](Result<Json> claim) {
      ClaimFact fact{name, true, "", ""};
      if (!claim && claim.error().code == Code::kNotFound) {
        fact.exists = false;
      } else if (!claim) {
        return unseen(facts, "claim " + name, claim.error());
      } else {
        fact.phase = claim->value(Json::json_pointer("/status/phase"), "");
        fact.storage_class = claim->value(Json::json_pointer("/spec/storageClassName"), "");
      }
      facts.claims.push_back(std::move(fact));
    });
  }
}

void ask_launchers(Cluster& cluster, Facts& facts, size_t most) {
  size_t asked = 0;
  for (const PodFact& pod : facts.pods) {
    if (pod.metrics_port == 0 || pod.phase != "Running" || pod.deleted || asked++ >= most) continue;
    cluster.text_later(kube::Pod::type(), {cluster.ns(), pod.name + ":" + std::to_string(pod.metrics_port)},
                       "proxy/metrics", {}, [&facts, name = pod.name](Result<std::string> page) {
                         if (!page) return unseen(facts, "numbers of " + name, page.error());
                         for (RankFact& rank : read_ranks(*page, name)) facts.ranks.push_back(std::move(rank));
                       });
  }
}

// The agents of the job's nodes, by the chart's labels and names.
void ask_agents(Cluster& cluster, Facts& facts, const std::vector<Json>& agents, size_t most) {
  std::map<std::string, std::set<std::string>> ours;  // node → the job's pods there
  for (const PodFact& pod : facts.pods) {
    if (pod.phase == "Running" && !pod.deleted && ours.size() < most) ours[pod.node].insert(pod.name);
  }
  for (const Json& agent : agents) {
    const auto text = [&](const char* at) { return agent.value(Json::json_pointer(at), std::string()); };
    const auto found = ours.find(text("/spec/nodeName"));
    const uint16_t port = port_called(agent.value("spec", Json::object()), "metrics");
    if (found == ours.end() || port == 0 || text("/status/phase") != "Running") continue;
    const ObjectKey key{text("/metadata/namespace"), text("/metadata/name") + ":" + std::to_string(port)};
    cluster.text_later(kube::Pod::type(), key, "proxy/metrics", {}, [&facts, node = *found](Result<std::string> page) {
      if (!page) return unseen(facts, "GPUs and EFA of " + node.first, page.error());
      facts.numbers.push_back(read_numbers(*page, node.first, node.second));
    });
  }
}

// The pod whose container ended last with a failure, or that holds the rank that failed last; null: none.
const PodFact* failed_pod(const Facts& facts, bool& previous) {
  const PodFact* found = nullptr;
  std::optional<Instant> latest;
  for (const PodFact& pod : facts.pods) {
    for (const ContainerFact& container : pod.containers) {
      if (container.name != facts.job.spec.container) continue;
      for (const bool last : {false, true}) {
        const auto& ended = last ? container.last_ended : container.ended;
        if (!ended || ended->exit_code == 0) continue;
        const Instant at = ended->finished.value_or(Instant());
        if (latest && at < *latest) continue;
        latest = at;
        found = &pod;
        previous = last;
      }
    }
  }
  if (found != nullptr) return found;
  const auto& status = facts.job.status;
  if (status.recoveries.empty()) return nullptr;
  for (const api::SlotStatus& slot : status.slots) {
    if (slot.node != status.recoveries.front().node) continue;
    for (const PodFact& pod : facts.pods) {
      if (pod.uid == slot.pod_uid) return &pod;
    }
  }
  return nullptr;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

// Neither the launcher's own words, which stand among those of the ranks, nor a kubelet's that has no log any more.
bool of_a_rank(const std::string& line) {
  return !said_by_launcher(line) && !line.starts_with("unable to retrieve container logs for ");
}

void ask_for_last_lines(Cluster& cluster, Facts& facts, int64_t lines) {
  bool previous = false;
  const PodFact* pod = failed_pod(facts, previous);
  facts.container_before = previous;
  if (pod == nullptr || lines <= 0) return;
  std::vector<std::pair<std::string, std::string>> query{{"container", facts.job.spec.container},
                                                         {"tailLines", std::to_string(lines)}};
  if (previous) query.emplace_back("previous", "true");
  cluster.text_later(kube::Pod::type(), {cluster.ns(), pod->name}, "log", std::move(query),
                     [&facts, name = pod->name](Result<std::string> text) {
                       if (!text) return;  // gone, or never started: the pod's state says it better
                       facts.last_lines_of = name;
                       for (std::string& line : without_stacks(lines_of(*text))) {
                         if (of_a_rank(line)) facts.last_lines.push_back(std::move(line));
                       }
                     });
}

// What init containers that others wait for said last: of those that fail, and of those that run.
void ask_for_init_lines(Cluster& cluster, Facts& facts, const GatherOptions& options) {
  size_t asked = 0;
  for (PodFact& pod : facts.pods) {
    const ContainerFact* found = initializing(pod);
    if (found == nullptr || options.log_lines <= 0) continue;
    const bool ended = found->ended || found->last_ended;
    if ((!ended && !found->running) || asked++ >= options.max_init_logs) continue;
    std::vector<std::pair<std::string, std::string>> query{{"container", found->name},
                                                           {"tailLines", std::to_string(options.log_lines)}};
    if (found->running && found->last_ended) query.emplace_back("previous", "true");
    ContainerFact& container = pod.containers[static_cast<size_t>(found - pod.containers.data())];
    cluster.text_later(kube::Pod::type(), {cluster.ns(), pod.name}, "log", std::move(query),
                       [&container](Result<std::string> text) {
                         if (text) container.last_lines = lines_of(*text);
                       });
  }
}

// What the trainer says of durable saves that fail (trainer/train/trainer.cpp), where one is overdue.
void ask_for_save_error(Cluster& cluster, Facts& facts, int64_t lines) {
  if (!checkpoint_overdue(facts) || lines <= 0) return;
  for (const api::SlotStatus& slot : facts.job.status.slots) {
    if (slot.slot != Slot(0)) continue;
    for (const PodFact& pod : facts.pods) {
      if (pod.uid != slot.pod_uid) continue;
      cluster.text_later(kube::Pod::type(), {cluster.ns(), pod.name}, "log",
                         {{"container", facts.job.spec.container}, {"tailLines", std::to_string(lines * 10)}},
                         [&facts](Result<std::string> text) {
                           if (!text) return;
                           for (std::string& line : lines_of(*text)) {
                             if (contains(line, "failed durable checkpoint")) facts.save_error = std::move(line);
                           }
                         });
    }
  }
}

}  // namespace

Result<Facts> gather(Cluster& cluster, const std::string& job, const GatherOptions& options) {
  Facts facts;
  PITCREW_ASSIGN(facts.job, cluster.job(job));
  api::validate(facts.job, facts.job_problems);
  facts.now = cluster.now();
  facts.kubectl = cluster.kubectl();
  facts.pitcrew = cluster.pitcrew();

  std::vector<EventFact> events;
  cluster.list_later(kube::Pod::type(),
                     {.ns = cluster.ns(), .label_selector = std::string(api::label::kJob) + "=" + job},
                     [&](Result<std::vector<Json>> items) {
                       if (!items) return unseen(facts, "pods", items.error());
                       for (const Json& item : *items) facts.pods.push_back(read_pod(item));
                     });
  cluster.list_later(kube::Node::type(), {}, decoded(facts, facts.nodes, "nodes", &facts.nodes_known));
  cluster.list_later(api::NodeHealth::type(), {}, [&](Result<std::vector<Json>> items) {
    if (!items) return unseen(facts, "node health", items.error());
    // Leniently, as the job: shown as far as this version understands it.
    for (const Json& item : *items) {
      Problems problems;
      facts.health.push_back(api::decode_node_health(item, problems));
    }
  });
  cluster.get_later(api::CordonBudget::type(), {"", api::CordonBudget::kName}, [&](Result<Json> budget) {
    if (!budget) return unseen(facts, "the agents' CordonBudget", budget.error());
    Problems problems;
    facts.budget = api::decode_cordon_budget(*budget, problems);
  });
  cluster.list_later(kube::ResourceQuota::type(), {.ns = cluster.ns()}, decoded(facts, facts.quotas, "quotas"));
  ask_for_events(cluster, facts, events);
  ask_for_leases(cluster, facts);
  ask_for_other_jobs(cluster, facts);
  std::vector<Json> agents;
  if (options.live) {
    cluster.list_later(kube::Pod::type(), {.label_selector = kAgents}, [&](Result<std::vector<Json>> items) {
      if (!items) return unseen(facts, "the agents' numbers", items.error());
      agents = *std::move(items);
    });
  }
  cluster.wait();

  ask_for_claims(cluster, facts);
  if (options.live) {
    ask_launchers(cluster, facts, options.max_live);
    ask_agents(cluster, facts, agents, options.max_live);
  }
  ask_for_last_lines(cluster, facts, options.log_lines);
  ask_for_init_lines(cluster, facts, options);
  ask_for_save_error(cluster, facts, options.log_lines);
  cluster.wait();
  facts.events = of_the_job(facts, std::move(events));
  std::sort(facts.ranks.begin(), facts.ranks.end(),
            [](const RankFact& a, const RankFact& b) { return a.rank < b.rank; });
  std::sort(facts.numbers.begin(), facts.numbers.end(),
            [](const NodeNumbers& a, const NodeNumbers& b) { return a.node < b.node; });
  std::sort(facts.pods.begin(), facts.pods.end(), [](const PodFact& a, const PodFact& b) { return a.name < b.name; });
  return facts;
}

}  // namespace pitcrew::cli
