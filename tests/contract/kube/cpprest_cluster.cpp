#include "lib/kube/cpprest/cpprest_transport.hpp"
#include "tests/contract/kube/http_cluster.hpp"

namespace pitcrew::contract {
namespace {

// As HttpCluster, with the calls through cpprestsdk.
class CpprestCluster final : public HttpCluster {
 public:
  explicit CpprestCluster(HttpClusterSettings settings) : HttpCluster(settings) {
    auto made = kube::CpprestTransport::create(asio(), config());
    if (!made) throw std::runtime_error(made.error().message);
    calls_ = *std::move(made);
  }
  kube::Transport& transport() override { return *calls_; }

 private:
  std::unique_ptr<kube::CpprestTransport> calls_;
};

}  // namespace

std::vector<ClusterKind> cpprest_clusters() {
  const auto kind = [](const char* name, HttpClusterSettings settings) {
    return ClusterKind{name, [settings] { return std::make_unique<CpprestCluster>(settings); }};
  };
  return {kind("cpprest_http", {}), kind("cpprest_https", {.tls = true}),
          kind("cpprest_https_in_slices", {.tls = true, .slice = 100})};
}

}  // namespace pitcrew::contract
