#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "lib/api/channel.hpp"
#include "lib/base/delayed.hpp"
#include "lib/base/log.hpp"
#include "lib/base/random.hpp"
#include "lib/kube/types/pod.hpp"
#include "lib/net/reconnecting_client.hpp"

namespace pitcrew::swarm {

class ThinLauncher;

// The ranks of one epoch: no step is done before all of them are there, and none after one has left. One for all
// launchers of the epoch; ends with the last of them.
class Gang {
 public:
  explicit Gang(api::channel::Table rows) : rows_(std::move(rows)) {}
  const api::channel::Table& rows() const { return rows_; }
  void join(ThinLauncher& launcher);
  void leave(ThinLauncher& launcher);
  bool steps() const { return whole_ && members_.size() == rows_.size(); }

 private:
  api::channel::Table rows_;
  bool whole_ = false;  // it was
  std::set<ThinLauncher*> members_;
};

// What a thin launcher needs of the world around its pod; one for all of a swarm.
struct Surroundings {
  net::AsioLoop& loop;
  Random& random;
  Logger log;
  // Asks for a token of the pod for the channel, as a kubelet projects one; it comes by take_token(), later.
  std::function<void(const kube::Pod& pod)> ask_token;
  // Where an advertised address ends now, as a node's proxy knows; nothing: nowhere.
  std::function<std::optional<net::Address>(const std::string& advertised)> route;
  // The ranks of that epoch of the job, made by whoever comes first, from the whole message.
  std::function<std::shared_ptr<Gang>(const std::string& job_uid, EpochId epoch, const std::string& message)> gang;
  // Something that is counted has changed.
  std::function<void()> changed;
  // The operator said finish: the pod ends.
  std::function<void(const std::string& pod_uid, bool success)> finished;
  Duration rank_start{0};  // from an epoch's table to its first step
  Duration rank_end{0};    // from an abort to ranks that are gone
};

// One pod's launcher as the operator knows it: the real channel, TLS and token, with nothing behind it but a counter
// for a step. Owned by the Swarm, on its loop; ends by destruction, which cuts the connection.
class ThinLauncher {
 public:
  ThinLauncher(Surroundings& world, std::shared_ptr<const kube::Pod> pod);
  ~ThinLauncher();
  ThinLauncher(const ThinLauncher&) = delete;

  // The pod's object has changed: channel.json may be another one.
  void update(std::shared_ptr<const kube::Pod> pod);
  void take_token(Result<std::string> token);
  // The Service leads elsewhere now.
  void route();
  // The lowest local rank ends by SIGSEGV; its process stays.
  void crash();

  bool connected() const { return client_ && client_->connected(); }
  EpochId seen() const { return seen_; }
  std::optional<Slot> slot() const { return slot_; }
  // Ranks of `seen` do steps.
  bool training() const { return training_ && gang_ && gang_->steps(); }
  // Told by the gang: all ranks are there.
  void begin_training();

 private:
  void ask_for_token();
  void connect();
  net::ReconnectSettings settings() const;
  void hello();
  void received(const std::string& text);
  void take(const api::channel::Epoch& epoch, const std::string& message);
  void take(const api::channel::Stop& stop);
  void leave_gang();
  void beat();
  void progress();
  void say(const api::channel::FromLauncher& message);

  Surroundings& world_;
  std::shared_ptr<const kube::Pod> pod_;
  std::string job_uid_;
  std::string boot_;
  std::string config_text_;
  api::channel::Config config_;
  std::string token_;
  EpochId seen_;
  std::optional<Slot> slot_;
  Rank first_rank_;
  bool running_ = false;
  bool training_ = false;
  std::shared_ptr<Gang> gang_;
  Step step_;
  std::optional<Step> resumed_;
  std::vector<api::channel::Exited> exits_;  // of the epoch, told again after a reconnect
  Loop::TimerPtr token_timer_;
  Loop::TimerPtr beat_timer_;
  Delayed delayed_;
  std::unique_ptr<net::ReconnectingClient> client_;
};

}  // namespace pitcrew::swarm
