#include "agent/act/take_back.hpp"

#include <algorithm>
#include <deque>

#include "agent/act/node_patch.hpp"
#include "lib/api/health_names.hpp"
#include "lib/kube/client/client.hpp"
#include "lib/kube/types/fields.hpp"

namespace pitcrew::agent {
namespace {

const ResourceType kDaemonSet{"apps", "v1", "DaemonSet", "daemonsets", true};

kube::ClientSettings client_settings(const TakeBackSettings& settings) {
  kube::ClientSettings client;
  client.rate = client.burst = settings.requests_per_second;
  client.field_manager = api::health::kFieldManager;
  return client;
}

bool ours_on(const kube::Node& node) { return taking_back(node) != NodeChange{} || health_condition(node) != nullptr; }

// The node's conditions without ours, to take effect on that very version alone.
Json without_condition(const Json& node) {
  Json conditions = Json::array();
  kube::fields::each(kube::fields::find(node, "status", "conditions"), [&](const Json& condition) {
    if (condition.value("type", "") != api::health::kCondition) conditions.push_back(condition);
  });
  return {{"metadata", {{"uid", node["metadata"]["uid"]}, {"resourceVersion", node["metadata"]["resourceVersion"]}}},
          {"status", {{"conditions", std::move(conditions)}}}};
}

}  // namespace

class TakeBack::Impl : public std::enable_shared_from_this<TakeBack::Impl> {
 public:
  Impl(Loop& loop, kube::Transport& transport, uint64_t seed, TakeBackSettings settings, Logger log, Done done)
      : loop_(loop),
        settings_(std::move(settings)),
        log_(std::move(log)),
        done_(std::move(done)),
        client_(loop, transport, seed, client_settings(settings_)) {}

  template <typename F>
  auto alive(F function) {
    return [self = weak_from_this(), function = std::move(function)](auto&& answer) {
      if (const auto impl = self.lock()) function(std::forward<decltype(answer)>(answer));
    };
  }
  void after(Duration delay, void (Impl::*next)()) {
    timer_ = loop_.after(delay, [this, next] { (this->*next)(); });
  }

  void start() {
    if (settings_.daemon_set.empty()) return list_nodes();
    client_.remove_raw(
        kDaemonSet, {settings_.ns, settings_.daemon_set}, {}, alive([this](Status status) {
          if (!status && status.error().code != Code::kNotFound) {
            return tell(Error(status.error().code, "deleting the agents' DaemonSet " + settings_.daemon_set + ": " +
                                                       status.error().message));
          }
          until_ = loop_.now() + settings_.pods_within;
          look_at_pods();
        }));
  }
  void stop() { timer_.reset(); }

 private:
  void look_at_pods() {
    client_.list<kube::Pod>({settings_.ns, settings_.pods, "", 500}, alive([this](Result<kube::List<kube::Pod>> list) {
                              if (list && list->items.empty()) return list_nodes();
                              if (loop_.now() < until_) return after(settings_.look_every, &Impl::look_at_pods);
                              log_.warning("agents have not ended in time; their nodes may be lost");
                              list_nodes();
                            }));
  }

  void list_nodes() {
    client_.list<kube::Node>({}, alive([this](Result<kube::List<kube::Node>> list) {
                               if (!list) return tell(list.error());
                               result_.nodes = list->items.size();
                               for (const auto& node : list->items) {
                                 if (!ours_on(*node)) continue;
                                 if (held(*node)) {
                                   result_.held.push_back(node->metadata.name);
                                 } else {
                                   left_.push_back(node->metadata.name);
                                 }
                               }
                               next();
                             }));
  }

  void next() {
    attempts_ = 0;
    counted_ = false;
    if (left_.empty()) return tell(std::move(result_));
    node_ = left_.front();
    left_.pop_front();
    read_node();
  }

  void read_node() {
    client_.get_raw(kube::Node::type(), {"", node_}, alive([this](Result<kube::Payload> answer) {
                      if (!answer && answer.error().code == Code::kNotFound) return next();
                      if (!answer) return again(answer.error());
                      const auto node = answer->as<kube::Node>();
                      const auto tree = answer->json();
                      if (!node || !tree) return again(node ? tree.error() : node.error());
                      change(**node, **tree);
                    }));
  }

  // The marks first, then the condition, then what others have changed meanwhile.
  void change(const kube::Node& node, const Json& tree) {
    const NodeChange change = taking_back(node);
    if (change == NodeChange{} && health_condition(node) == nullptr) return next();
    if (!counted_) ++result_.changed;
    counted_ = true;
    kube::Patch patch;
    bool kept = false;
    if (change != NodeChange{}) {
      NodePatch made = node_patch(change, tree, loop_.now());
      patch.body = std::move(made.body);
      kept = made.kept;
    } else {
      patch.body = without_condition(tree);
      patch.subresource = "status";
    }
    client_.patch_raw(kube::Node::type(), {"", node_}, std::move(patch),
                      alive([this, kept](Result<kube::Payload> answer) {
                        if (!answer) return again(answer.error());
                        if (kept) result_.kept.push_back(node_);
                        read_node();
                      }));
  }

  void again(const Error& error) {
    if (++attempts_ < settings_.attempts) return after(settings_.retry_after, &Impl::read_node);
    result_.failed.push_back(node_ + ": " + error.message);
    next();
  }

  void tell(Result<TakenBack> result) {
    if (auto done = std::exchange(done_, nullptr)) done(std::move(result));
  }

  Loop& loop_;
  const TakeBackSettings settings_;
  const Logger log_;
  Done done_;
  kube::Client client_;
  Instant until_;
  std::deque<std::string> left_;
  std::string node_;
  int attempts_ = 0;
  bool counted_ = false;
  TakenBack result_;
  Loop::TimerPtr timer_;
};

TakeBack::TakeBack(Loop& loop, kube::Transport& transport, uint64_t seed, TakeBackSettings settings, Logger log,
                   Done done)
    : impl_(std::make_shared<Impl>(loop, transport, seed, std::move(settings), std::move(log), std::move(done))) {}
TakeBack::~TakeBack() { impl_->stop(); }
void TakeBack::start() { impl_->start(); }

}  // namespace pitcrew::agent
