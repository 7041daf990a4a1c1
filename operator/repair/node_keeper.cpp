#include "operator/repair/node_keeper.hpp"

#include <algorithm>
#include <map>
#include <set>

#include "lib/api/cordon_budget.hpp"
#include "lib/api/health_names.hpp"
#include "lib/kube/types/fields.hpp"
#include "lib/kube/types/pod.hpp"
#include "operator/repair/condition.hpp"

namespace pitcrew::control {
namespace {

using kube::fields::find;

const ResourceType kNodeClaims{"karpenter.sh", "v1", "NodeClaim", "nodeclaims", false};
constexpr size_t kRemembered = 4096;
constexpr Duration kShownWithin = seconds(30);  // a pod that was created, by the cache

kube::ClientSettings client_settings() {
  kube::ClientSettings made;
  made.rate = 20;
  made.burst = 50;
  made.field_manager = kRepairManager;
  return made;
}

kube::EventRecorderSettings event_settings(const NodeKeeperSettings& settings) {
  kube::EventRecorderSettings made;
  made.instance = settings.identity;
  return made;
}

}  // namespace

Status NodeKeeperSettings::validate() const {
  const bool url = webhook.starts_with("http://") || webhook.starts_with("https://");
  if (repair == RepairMode::kWebhook && !url) {
    return Error(Code::kInvalidArgument, "repair: `webhook` must be a URL, http:// or https://");
  }
  if (check.deadline < minutes(1)) return Error(Code::kInvalidArgument, "check: `deadline` must be 1m or more");
  return {};
}

class NodeKeeper::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(Loop& loop, kube::Transport& transport, uint64_t seed, NodeKeeperSettings settings, NodeKeeperWorld world,
       Logger log)
      : loop_(loop),
        settings_(std::move(settings)),
        world_(std::move(world)),
        log_(std::move(log)),
        client_(loop, transport, seed, client_settings()),
        events_(loop, client_, seed + 1, event_settings(settings_), log_) {}

  void look() {
    timer_ = loop_.after(settings_.every, [this] { look(); });
    if (!world_.may_act()) return;
    for (const Looked& one : plan_all()) {
      if (!busy_.contains(one.care.health->metadata.name) && !keep_check(one)) repair(one.care);
    }
    if (!pruned_ || loop_.now() - *pruned_ >= settings_.prune) prune();
  }

 private:
  struct Looked {
    NodeCare care;
    CheckPod pod;
    CheckPlan check;
  };

  // Every node with what is to be done about its check, so that no more of them run at once than may.
  std::vector<Looked> plan_all() {
    std::vector<Looked> all;
    size_t nodes = 0, running = 0;
    std::vector<DueCheck> due;
    std::erase_if(begun_, [this](const auto& one) { return loop_.now() - one.second > kShownWithin; });
    world_.for_each([&](const NodeCare& care, const CheckPod& pod) {
      const std::string& name = care.health->metadata.name;
      all.push_back({care, pod, plan_check(care, pod, settings_.check)});
      const CheckPlan& plan = all.back().check;
      nodes += care.node != nullptr;
      if (pod.there) begun_.erase(name);
      if (pod.there || begun_.contains(name)) {
        ++running;
      } else if (plan.step == CheckStep::kCreate) {
        due.push_back({name, plan.requested, plan.since});
      }
    });
    const size_t limit = checks_at_once(settings_.check.limit, nodes);
    const std::set<std::string> begin = checks_to_begin(std::move(due), running, limit);
    for (Looked& one : all) {
      const std::string& name = one.care.health->metadata.name;
      if (one.check.step != CheckStep::kCreate || begin.contains(name) || begun_.contains(name)) continue;
      one.check.step = CheckStep::kWait;
      one.check.why = "as many nodes as may be are being checked: " + std::to_string(limit) + " at once";
      waits(one, "limit");
    }
    return all;
  }

  // Said once for each check.
  void waits(const Looked& one, const std::string& kind) {
    if (!one.care.node) return;
    if (told_.size() >= kRemembered) told_.clear();
    if (!told_.insert(one.care.node->metadata.uid + "/" + one.check.id + "/" + kind).second) return;
    tell(one.care, "Normal", "CheckWaits", "Check", "deep check " + one.check.id + " waits: " + one.check.why);
  }

  // The answer of a call about this node; nothing once the keeper is gone.
  template <typename T, typename F>
  std::function<void(T)> then(const NodeCare& care, F function) {
    const std::string name = care.health->metadata.name;
    busy_.insert(name);
    return [self = weak_from_this(), name, function = std::move(function)](T result) {
      const auto impl = self.lock();
      if (!impl) return;
      impl->busy_.erase(name);
      function(std::move(result));
    };
  }

  template <typename R>
  bool failed(const NodeCare& care, const std::string& what, const R& result) {
    if (result) return false;
    log_.warning("a node could not be looked after; trying again",
                 {{"node", care.health->spec.node_name}, {"what", what}, {"error", result.error().message}});
    return true;
  }

  void tell(const NodeCare& care, const char* type, const std::string& reason, const std::string& action,
            const std::string& note) {
    const kube::Node& node = *care.node;
    events_.record({"v1", "Node", "", node.metadata.name, node.metadata.uid}, type, reason, action, note);
  }

  // Once for each fault of each node.
  bool first_time(const NodeCare& care, const RepairOrder& order, const std::string& what) {
    if (told_.size() >= kRemembered) told_.clear();
    return told_.insert(care.node->metadata.uid + "/" + to_rfc3339(order.since, 3) + "/" + order.reason + "/" + what)
        .second;
  }

  void refuse(const NodeCare& care, const RepairOrder& order, const std::string& why) {
    if (!first_time(care, order, why)) return;
    log_.warning("a repair is refused", {{"node", care.node->metadata.name}, {"why", why}});
    tell(care, "Warning", "RepairRefused", "Repair", order.message + "; " + why);
  }

  void ordered(const NodeCare& care, const RepairOrder& order, const std::string& what) {
    if (!first_time(care, order, what)) return;
    log_.warning("a repair is ordered",
                 {{"node", care.node->metadata.name}, {"action", api::to_string(order.action)}, {"how", what}});
    tell(care, "Warning", "RepairOrdered", std::string(api::to_string(order.action)), order.message + "; " + what);
  }

  // ---- repairs -----------------------------------------------------------------------------------------------------

  void repair(const NodeCare& care) {
    const auto order = repair_order(care, settings_.repair);
    if (!order) return take_back(care);
    switch (settings_.repair) {
      case RepairMode::kNone:
        return;
      case RepairMode::kCondition:
        return write_condition(care, *order);
      case RepairMode::kNodeClaim:
        return delete_node_claim(care, *order);
      case RepairMode::kLabel:
        return set_label(care, *order);
      case RepairMode::kWebhook:
        return post(care, *order);
    }
  }

  // The Node is read live: managedFields are in no cache.
  void write_condition(const NodeCare& care, const RepairOrder& order) {
    client_.get_raw(kube::Node::type(), {"", care.node->metadata.name},
                    then<Result<kube::Payload>>(care, [this, care, order](auto answer) {
                      if (failed(care, "read the Node", answer)) return;
                      const auto json = answer->json();
                      const auto node = answer->template as<kube::Node>();
                      if (!json || !node || (*node)->metadata.uid != care.node->metadata.uid) return;
                      if (const std::string other = condition_writer(**json); !other.empty()) {
                        return refuse(care, order,
                                      other + " writes " + kAcceleratedHardwareReady +
                                          " on this node too, so its repair can't be asked for by it; turn one of the "
                                          "two off, or choose another repair mode");
                      }
                      if (condition_says(**node, false, order.reason)) return;
                      apply_condition(care, condition_of(**node, false, order.reason, order.message, loop_.now()),
                                      [this, care, order] {
                                        ordered(care, order,
                                                std::string("condition ") + kAcceleratedHardwareReady + " is False");
                                      });
                    }));
  }

  void apply_condition(const NodeCare& care, Json object, std::function<void()> done) {
    object["metadata"]["uid"] = care.node->metadata.uid;
    client_.apply_raw(kube::Node::type(), std::move(object), {kRepairManager, false, "status"},
                      then<Result<kube::Payload>>(care, [this, care, done](auto answer) {
                        if (!failed(care, "write the Node's condition", answer)) done();
                      }));
  }

  // The node is well again: the condition is made True, where it is False and ours.
  void take_back(const NodeCare& care) {
    if (settings_.repair != RepairMode::kCondition || !care.node || !care.health->status.healthy) return;
    const auto& conditions = care.node->conditions;
    const auto found = std::find_if(conditions.begin(), conditions.end(), [](const kube::NodeCondition& condition) {
      return condition.type == kAcceleratedHardwareReady && condition.status == "False";
    });
    if (found == conditions.end()) return;
    const std::string key = care.node->metadata.uid + "/" + to_rfc3339(found->last_transition);
    if (not_ours_.contains(key)) return;
    client_.get_raw(kube::Node::type(), {"", care.node->metadata.name},
                    then<Result<kube::Payload>>(care, [this, care, key](auto answer) {
                      if (failed(care, "read the Node", answer)) return;
                      const auto json = answer->json();
                      const auto node = answer->template as<kube::Node>();
                      if (!json || !node || (*node)->metadata.uid != care.node->metadata.uid) return;
                      if (!condition_writer(**json).empty()) {
                        if (not_ours_.size() >= kRemembered) not_ours_.clear();
                        not_ours_.insert(key);
                        return;
                      }
                      if (condition_says(**node, true, "PitcrewHealthy")) return;
                      apply_condition(
                          care, condition_of(**node, true, "PitcrewHealthy", "no fault any more", loop_.now()), [] {});
                    }));
  }

  void delete_node_claim(const NodeCare& care, const RepairOrder& order) {
    client_.list_raw(kNodeClaims, {}, then<Result<kube::Client::RawList>>(care, [this, care, order](auto list) {
                       if (failed(care, "list NodeClaims", list)) return;
                       for (const kube::Payload& item : list->items) {
                         const auto json = item.json();
                         const Json* status = json ? find(**json, "status") : nullptr;
                         const Json* metadata = json ? find(**json, "metadata") : nullptr;
                         if (status == nullptr || metadata == nullptr || care.node->provider_id.empty()) continue;
                         if (status->value("providerID", "") != care.node->provider_id) continue;
                         if (!metadata->contains("deletionTimestamp")) remove(care, order, *metadata);
                         return;
                       }
                       refuse(care, order, "no NodeClaim has its providerID; Karpenter didn't make this node");
                     }));
  }

  void remove(const NodeCare& care, const RepairOrder& order, const Json& metadata) {
    kube::RemoveOptions options;
    options.preconditions.uid = metadata.value("uid", "");
    const std::string name = metadata.value("name", "");
    client_.remove_raw(kNodeClaims, {"", name}, options, then<Status>(care, [this, care, order, name](Status status) {
                         if (!status && status.error().code == Code::kNotFound) return;
                         if (!failed(care, "delete NodeClaim " + name, status))
                           ordered(care, order, "NodeClaim " + name + " is deleted");
                       }));
  }

  void set_label(const NodeCare& care, const RepairOrder& order) {
    const std::string wanted(hyperpod_status(order.action));
    const auto label = care.node->metadata.labels.find(api::health::kHyperPodStatus);
    if (label != care.node->metadata.labels.end() && label->second == wanted) return;
    kube::Patch patch;
    patch.body = {{"metadata", {{"labels", {{api::health::kHyperPodStatus, wanted}}}}}};
    patch.preconditions.uid = care.node->metadata.uid;
    client_.patch_raw(kube::Node::type(), {"", care.node->metadata.name}, std::move(patch),
                      then<Result<kube::Payload>>(care, [this, care, order, wanted](auto answer) {
                        if (!failed(care, "label the Node", answer))
                          ordered(care, order, std::string(api::health::kHyperPodStatus) + " is " + wanted);
                      }));
  }

  void post(const NodeCare& care, const RepairOrder& order) {
    if (!world_.post) return refuse(care, order, "this process can't call webhooks");
    const std::string id =
        care.node->metadata.uid + "/" + to_rfc3339(order.since, 3) + "/" + std::string(api::to_string(order.action));
    if (posted_.contains(id)) return;
    const Json body{{"id", id},
                    {"node", care.node->metadata.name},
                    {"nodeUID", care.node->metadata.uid},
                    {"providerID", care.node->provider_id},
                    {"nodeHealth", care.health->metadata.name},
                    {"action", api::to_string(order.action)},
                    {"reason", order.reason},
                    {"message", order.message},
                    {"since", to_rfc3339(order.since, 3)}};
    world_.post(settings_.webhook, body.dump(), then<Status>(care, [this, care, order, id](Status status) {
                  if (failed(care, "post to " + settings_.webhook, status)) return;
                  if (posted_.size() >= kRemembered) posted_.clear();
                  posted_.insert(id);
                  ordered(care, order, "posted to the webhook");
                }));
  }

  // ---- deep checks -------------------------------------------------------------------------------------------------

  // True where a call is under way, so that nothing else is done about the node now.
  bool keep_check(const Looked& one) {
    const auto& [care, pod, plan] = one;
    switch (plan.step) {
      case CheckStep::kNothing:
        return false;
      case CheckStep::kWait:
        if (!pod.there && plan.requested) waits(one, plan.why);
        return pod.there;  // a node that is being checked isn't repaired under it
      case CheckStep::kCreate:
        begun_[care.health->metadata.name] = loop_.now();
        client_.create_raw(kube::Pod::type(), check_pod(care, plan.id, settings_.check),
                           then<Result<kube::Payload>>(care, [this, care](auto answer) {
                             if (!answer && answer.error().code == Code::kAlreadyExists) return;
                             if (failed(care, "create the check's pod", answer))
                               begun_.erase(care.health->metadata.name);
                           }));
        return true;
      case CheckStep::kCollect:
        collect(care, plan.id);
        return true;
      case CheckStep::kRemove:
        remove_pod(care);
        return true;
      case CheckStep::kRefuse:
        answer(care, {{plan.id, "run", api::CheckOutcome::kUnknown, plan.why, loop_.now()}});
        return true;
    }
    return false;
  }

  ObjectKey pod_key(const NodeCare& care) const { return {settings_.check.ns, check_pod_name(*care.health)}; }

  void collect(const NodeCare& care, const std::string& id) {
    client_.get_raw(kube::Pod::type(), pod_key(care), then<Result<kube::Payload>>(care, [this, care, id](auto pod) {
                      if (failed(care, "read the check's pod", pod)) return;
                      const auto json = pod->json();
                      if (!json) return;
                      const Json* metadata = find(**json, "metadata");
                      const Json* annotations = metadata == nullptr ? nullptr : find(*metadata, "annotations");
                      // The pod of an older request says nothing about this one.
                      if (annotations == nullptr || annotations->value(kCheckId, "") != id) return remove_pod(care);
                      answer(care, check_results(**json, id, loop_.now()));
                    }));
  }

  void answer(const NodeCare& care, std::vector<api::CheckResult> results) {
    api::NodeHealth health;
    health.status.checks = std::move(results);
    kube::Patch patch;
    patch.body = {{"status", {{"checks", health.encode().at("status").at("checks")}}}};
    patch.preconditions.uid = care.health->metadata.uid;
    patch.subresource = "status";
    client_.patch_raw(api::NodeHealth::type(), {"", care.health->metadata.name}, std::move(patch),
                      then<Result<kube::Payload>>(
                          care, [this, care](auto written) { failed(care, "write status.checks", written); }));
  }

  void remove_pod(const NodeCare& care) {
    client_.remove_raw(kube::Pod::type(), pod_key(care), {}, then<Status>(care, [this, care](Status status) {
                         if (!status && status.error().code == Code::kNotFound) return;
                         failed(care, "delete the check's pod", status);
                       }));
  }

  // ---- the budget --------------------------------------------------------------------------------------------------

  void prune() {
    pruned_ = loop_.now();
    const ObjectKey key{"", api::CordonBudget::kName};
    client_.get_raw(api::CordonBudget::type(), key, [this, key](Result<kube::Payload> answer) {
      if (!answer) return;  // no agents here
      const auto json = answer->json();
      if (!json) return;
      Problems ignored;
      const api::CordonBudget budget = api::decode_cordon_budget(**json, ignored);
      Json entries = Json::object();
      for (const std::string& node : api::expired_cordons(budget, loop_.now())) entries[node] = nullptr;
      if (entries.empty()) return;
      kube::Patch patch;
      patch.body = {{"status", {{"cordons", std::move(entries)}}}};
      patch.preconditions = {budget.metadata.uid, budget.metadata.resource_version};
      patch.subresource = "status";
      client_.patch_raw(api::CordonBudget::type(), key, std::move(patch), [this](Result<kube::Payload> written) {
        if (!written) log_.debug("old cordons stay for now", {{"error", written.error().message}});
      });
    });
  }

  Loop& loop_;
  const NodeKeeperSettings settings_;
  const NodeKeeperWorld world_;
  Logger log_;
  std::set<std::string> busy_;            // NodeHealths with a call under way
  std::set<std::string> told_;            // what people were told
  std::set<std::string> posted_;          // ids
  std::set<std::string> not_ours_;        // conditions that another writes
  std::map<std::string, Instant> begun_;  // NodeHealths whose check's pod was created and isn't shown yet
  std::optional<Instant> pruned_;
  kube::Client client_;
  kube::EventRecorder events_;
  Loop::TimerPtr timer_;
};

NodeKeeper::NodeKeeper(Loop& loop, kube::Transport& transport, uint64_t seed, NodeKeeperSettings settings,
                       NodeKeeperWorld world, Logger log)
    : impl_(std::make_shared<Impl>(loop, transport, seed, std::move(settings), std::move(world), std::move(log))) {}

NodeKeeper::~NodeKeeper() = default;

void NodeKeeper::start() { impl_->look(); }

}  // namespace pitcrew::control
