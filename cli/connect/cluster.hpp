#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lib/api/training_job.hpp"
#include "lib/kube/client/client.hpp"
#include "lib/kube/config/cluster_config.hpp"
#include "lib/net/asio_loop.hpp"

namespace pitcrew::cli {

// kubectl's flags, with kubectl's meaning.
struct ClusterFlags {
  std::string kubeconfig;
  std::string context;
  std::string ns;  // empty: the context's
  bool all_namespaces = false;
  Duration timeout = seconds(20);  // of one answer
};

// A cluster, asked in blocking calls: each runs the loop until it has its answer. Several answers at once: start them
// with the …_later functions, then wait(). Made by a command, lives on its loop, on one thread; destroying it drops
// what is under way.
class Cluster {
 public:
  static Result<std::unique_ptr<Cluster>> open(net::AsioLoop& loop, const ClusterFlags& flags);
  ~Cluster();
  Cluster(const Cluster&) = delete;
  Cluster& operator=(const Cluster&) = delete;

  const std::string& ns() const { return ns_; }
  Instant now() const { return loop_.now(); }
  net::AsioLoop& loop() { return loop_; }
  // "kubectl --context x -n team-a": what a person types to see the same.
  std::string kubectl() const;
  // "pitcrew --context x -n team-a".
  std::string pitcrew() const;

  Result<api::TrainingJob> job(const std::string& name);
  Result<Json> get(const ResourceType& type, const ObjectKey& key);
  // A subresource's text: a pod's log, what a pod answers behind the API server's proxy.
  Result<std::string> text(const ResourceType& type, const ObjectKey& key, const std::string& subresource,
                           std::vector<std::pair<std::string, std::string>> query = {});
  Result<std::vector<Json>> list(const ResourceType& type, const kube::ListOptions& options);
  Result<Json> create(const ResourceType& type, Json object);
  Result<Json> merge(const ResourceType& type, const ObjectKey& key, Json patch);
  Status remove(const ResourceType& type, const ObjectKey& key, std::optional<int64_t> grace_seconds = {});

  template <typename T>
  using Then = std::function<void(Result<T>)>;
  void get_later(const ResourceType& type, const ObjectKey& key, Then<Json> then);
  void list_later(const ResourceType& type, const kube::ListOptions& options, Then<std::vector<Json>> then);
  void text_later(const ResourceType& type, const ObjectKey& key, const std::string& subresource,
                  std::vector<std::pair<std::string, std::string>> query, Then<std::string> then);
  // Until everything that was started has its answer.
  void wait();
  // Lets time pass; false where the person pressed Ctrl-C meanwhile.
  bool pause(Duration duration);
  // Ctrl-C ends pause() from now on instead of the process.
  Status catch_interrupt();
  bool interrupted() const { return interrupted_; }

 private:
  Cluster(net::AsioLoop& loop, const ClusterFlags& flags, std::string ns, std::unique_ptr<kube::Transport> transport);
  template <typename T>
  Result<T> now_please(const std::function<void(Then<T>)>& start);

  net::AsioLoop& loop_;
  ClusterFlags flags_;
  std::string ns_;
  std::unique_ptr<kube::Transport> transport_;
  std::unique_ptr<kube::Client> client_;
  net::AsioLoop::WatchPtr signals_;
  size_t pending_ = 0;
  bool interrupted_ = false;
};

}  // namespace pitcrew::cli
