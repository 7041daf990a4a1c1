#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lib/kube/cache/informer.hpp"
#include "lib/kube/client/client.hpp"
#include "tests/bench/operator/swarm/endpoint_slice.hpp"
#include "tests/bench/operator/swarm/thin_launcher.hpp"

namespace pitcrew::swarm {

// The annotation by which kwok is told to end a pod, and its values; stages.yaml has the stages.
inline constexpr char kEnd[] = "bench.pitcrew.dev/end";
inline constexpr char kEndFailed[] = "Failed";
inline constexpr char kEndSucceeded[] = "Succeeded";

struct SwarmSettings {
  std::string ns;                           // of the pods
  std::string service_account = "default";  // that they run as
  std::string channel_ns = "pitcrew-system";
  std::string channel_service = "pitcrew-channel";
  std::string dial_host = "127.0.0.1";  // in place of the operators' advertised address; empty: that
  Duration rank_start{0};
  Duration rank_end{0};
  Duration report_every = milliseconds(10);  // at most
  kube::ClientSettings client = {.rate = 2000, .burst = 2000};
};

// What a swarm sees, counted. Pods that are deleting or have ended count in `seen` alone.
struct Census {
  size_t pods = 0;
  size_t running = 0;    // by their phase
  size_t connected = 0;  // channels that are open
  size_t in_epoch = 0;   // launchers that have the newest epoch's table and a slot in it
  size_t training = 0;   // of them, those beyond the first step
  EpochId epoch;         // the newest
  size_t seen = 0;       // pods since the start, by UID
  size_t ended = 0;      // of them, those that failed or succeeded
  bool operator==(const Census&) const = default;
};
Json to_json(const Census& census);

// The launchers of all pods of a namespace on nodes that nobody runs, and what a node does for them: projects tokens
// (TokenRequest), shows channel.json, leads the Service's address to the leader. Pods without channel.json are counted
// alone, so that it watches somebody else's pods at the same price. On the loop.
class Swarm {
 public:
  Swarm(net::AsioLoop& loop, kube::Transport& transport, SwarmSettings settings, uint64_t seed,
        std::function<void(const Census&)> report, Logger log);
  Swarm(const Swarm&) = delete;

  void start();
  Census census() const;

  // The processes of up to `count` running pods end, and the pods with them; from the middle of the names on, so that a
  // single one holds neither the first slot nor the first index. Returns their names.
  std::vector<std::string> fail(size_t count);
  // A rank of one pod crashes; its name, or "" where none trains.
  std::string crash();

 private:
  struct Member {
    std::shared_ptr<const kube::Pod> pod;
    std::unique_ptr<ThinLauncher> launcher;
  };
  void pod_changed(const std::shared_ptr<const kube::Pod>& pod);
  void pod_gone(const kube::Pod& pod);
  void slices_changed();
  void ask_token(const kube::Pod& pod);
  std::shared_ptr<Gang> gang(const std::string& job_uid, EpochId epoch, const std::string& message);
  void end_pod(const kube::Pod& pod, const char* how);
  void changed();

  net::AsioLoop& loop_;
  SwarmSettings settings_;
  Random random_;
  Logger log_;
  std::function<void(const Census&)> report_;
  Surroundings world_;
  kube::Client client_;
  kube::Informer<kube::Pod> pods_;
  kube::Informer<EndpointSlice> slices_;
  std::optional<net::Address> leader_;
  std::map<std::pair<std::string, EpochId>, std::weak_ptr<Gang>> gangs_;  // by job UID and epoch
  std::map<std::string, Member> members_;                                 // by pod UID
  size_t seen_ = 0;
  size_t ended_ = 0;
  Loop::TimerPtr report_timer_;
};

}  // namespace pitcrew::swarm
