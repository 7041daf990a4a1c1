#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "lib/base/delayed.hpp"
#include "lib/base/log.hpp"
#include "lib/base/loop.hpp"
#include "lib/kube/client/client.hpp"
#include "lib/kube/types/pod.hpp"
#include "operator/channel/channel_server.hpp"
#include "operator/channel/session_auth.hpp"
#include "operator/decide/launcher_view.hpp"
#include "operator/decide/snapshot.hpp"

namespace pitcrew::control {

struct ChannelHubSettings {
  Duration hello_timeout = seconds(10);  // from the opening to the hello
  size_t waiting_messages = 64;          // of a session whose token is being checked; more end it
  size_t bad_messages = 100;             // of a session, passed over; more end it
  size_t sessions = 20'000;
  Duration silent_shown = minutes(10);  // how long a silent node counts for the herd rule
};

struct ChannelHubMetrics {
  uint64_t opened = 0;
  uint64_t accepted = 0;
  uint64_t refused = 0;  // wrong token, wrong pod, wrong version
  uint64_t not_leader = 0;
  uint64_t messages = 0;
  uint64_t bad_messages = 0;
};

struct ChannelVersion {
  uint32_t major = 0;
  uint32_t minor = 0;
};

// Whether an operator understands a launcher: one of the same major version that is at most two minor ones older. A
// newer one, which a rolled back operator meets, is: fields that aren't known are passed over.
constexpr bool understands(ChannelVersion ours, ChannelVersion launchers) {
  constexpr uint32_t kMinorsBack = 2;
  return launchers.major == ours.major &&
         (launchers.minor >= ours.minor || ours.minor - launchers.minor <= kMinorsBack);
}

// All launchers' connections, and what each launcher has said. Only the leader lets anybody in; a standby sends them
// away. A session counts once its hello has been checked against its token (SessionAuth); a newer one of the same pod
// takes its place.
//
// What a message means is LauncherView's; the hub keeps one per pod from its first hello until forget(). Lives on the
// loop.
class ChannelHub final : private ChannelHandler {
 public:
  struct Callbacks {
    // A decision about this job may depend on what has changed.
    std::function<void(const std::string& job_uid, bool urgent)> changed;
    std::function<void(const std::string& job_uid, const api::channel::FromLauncher& message)> message;
    // A launcher has seen a term above the leader's own: a restored etcd.
    std::function<void(Term seen)> higher_term;
    std::function<void()> config_changed;
  };

  ChannelHub(Loop& loop, ChannelServer& server, SessionAuth& auth, ChannelHubSettings settings, Callbacks callbacks,
             Logger log);
  ~ChannelHub() override;
  ChannelHub(const ChannelHub&) = delete;

  void start();
  void stop();
  void lead(Term term);
  // Sends every launcher away and forgets what they said.
  void step_down();

  // By pod name; copies.
  std::vector<LauncherView> launchers_of(const std::string& job_uid) const;
  const LauncherView* launcher(const std::string& pod_uid) const;
  uint32_t connected_nodes() const;
  std::vector<SilentNode> silent_nodes() const;

  // False where the pod has no connection now.
  bool send(const std::string& pod_uid, const api::channel::ToLauncher& message);
  // The pod has ended: its silence says nothing about its node.
  void pod_ended(const std::string& pod_uid);
  // The pod is gone.
  void forget(const std::string& pod_uid);
  // The job is gone: so are those of its launchers that have no connection, whose pods may have gone unseen. The others
  // go with their pods.
  void forget_job(const std::string& job_uid);

  api::channel::Config config() const { return server_.config(); }
  const ChannelHubMetrics& metrics() const { return metrics_; }
  size_t sessions() const { return sessions_.size(); }
  // Launchers and jobs that something is known of.
  size_t kept() const { return launchers_.size() + by_job_.size(); }

 private:
  enum class Stage { kOpened, kChecking, kAccepted, kClosed };
  struct Session {
    uint64_t number = 0;  // in the order of their coming
    ChannelSessionPtr session;
    Stage stage = Stage::kOpened;
    std::string pod_uid;
    std::vector<std::string> waiting;
    size_t bad = 0;
    Instant last_heard;
    Loop::TimerPtr hello_timer;
  };
  using SessionRef = std::shared_ptr<Session>;
  struct Known {
    LauncherView view;
    SessionRef session;  // the accepted one
    bool ended = false;
  };

  void opened(const ChannelSessionPtr& session) override;
  void received(const ChannelSessionPtr& session, std::string_view text) override;
  void closed(const ChannelSessionPtr& session, const std::string& reason) override;
  void config_changed() override;

  void hello(const SessionRef& session, const std::string& text);
  void accept(const SessionRef& session, const api::channel::Hello& hello);
  void take(const SessionRef& session, std::string_view text);
  void end(const SessionRef& session, CloseCode code, const std::string& reason);
  void bad(const SessionRef& session, const std::string& what);
  void tally() const;

  Loop& loop_;
  ChannelServer& server_;
  SessionAuth& auth_;
  ChannelHubSettings settings_;
  Callbacks callbacks_;
  Logger log_;
  bool leading_ = false;
  Term term_;
  std::unordered_map<const ChannelSession*, SessionRef> sessions_;
  uint64_t last_session_ = 0;
  std::map<std::string, Known> launchers_;               // by pod UID
  std::map<std::string, std::set<std::string>> by_job_;  // job UID → pod UIDs
  ChannelHubMetrics metrics_;
  std::shared_ptr<ChannelHub*> self_;

  // Of connected_nodes() and silent_nodes(): counted again when a channel's state has changed.
  mutable bool tallied_ = false;
  mutable uint32_t connected_nodes_ = 0;
  mutable std::vector<SilentNode> silent_nodes_;
};

}  // namespace pitcrew::control
