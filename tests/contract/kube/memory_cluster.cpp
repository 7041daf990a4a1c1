#include "lib/local/api/memory_transport.hpp"
#include "tests/contract/kube/cluster.hpp"

namespace pitcrew::contract {
namespace {

class MemoryCluster final : public Cluster {
 public:
  MemoryCluster() : server_(loop_), transport_(loop_, server_) {}

  Loop& loop() override { return loop_; }
  kube::Transport& transport() override { return transport_; }
  std::string ns() override { return "contract"; }
  bool collects_garbage() const override { return true; }

  bool run_until(const std::function<bool()>& condition) override {
    const Instant limit = loop_.now() + minutes(2);
    while (!condition()) {
      if (loop_.now() > limit || !loop_.step()) return condition();
    }
    return true;
  }

 private:
  VirtualLoop loop_;
  local::ApiServer server_;
  local::MemoryTransport transport_;
};

}  // namespace

std::unique_ptr<Cluster> make_memory_cluster() { return std::make_unique<MemoryCluster>(); }

const std::vector<ClusterKind>& clusters() {
  static const std::vector<ClusterKind> kKinds = [] {
    std::vector<ClusterKind> kinds{{"memory", make_memory_cluster}};
    for (auto* more : {http_clusters, cpprest_clusters, real_clusters}) {
      for (ClusterKind& kind : more()) kinds.push_back(std::move(kind));
    }
    return kinds;
  }();
  return kKinds;
}

}  // namespace pitcrew::contract
