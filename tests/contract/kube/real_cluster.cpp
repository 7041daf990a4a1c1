#include <cstdlib>

#include <unistd.h>

#include "lib/kube/http/http_transport.hpp"
#include "tests/contract/kube/cluster.hpp"

namespace pitcrew::contract {
namespace {

constexpr char kVariable[] = "PITCREW_CONTRACT_KUBECONFIG";

// A real API server, in a namespace of this test's own. No controllers and no kubelet are expected to run.
class RealCluster final : public Cluster {
 public:
  explicit RealCluster(const std::string& kubeconfig) {
    auto config = kube::load_kubeconfig(kubeconfig);
    if (!config) throw std::runtime_error(config.error().message);
    auto transport = kube::connect(loop_, *config);
    if (!transport) throw std::runtime_error(transport.error().message);
    transport_ = *std::move(transport);
    static int count = 0;
    ns_ = "contract-" + std::to_string(::getpid()) + "-" + std::to_string(count++);
    call(kube::Verb::kCreate, {{"metadata", {{"name", ns_}}}}, "");
  }
  ~RealCluster() override { call(kube::Verb::kDelete, nullptr, ns_); }

  Loop& loop() override { return loop_; }
  kube::Transport& transport() override { return *transport_; }
  std::string ns() override { return ns_; }
  bool run_until(const std::function<bool()>& condition) override { return loop_.run_until(condition, seconds(60)); }
  bool collects_garbage() const override { return false; }

 private:
  void call(kube::Verb verb, Json body, const std::string& name) {
    static const ResourceType kNamespaces{"", "v1", "Namespace", "namespaces", false};
    kube::Request request{.verb = verb, .type = kNamespaces, .key = {"", name}};
    if (!body.is_null()) request.body = kube::Payload::of(std::move(body));
    bool done = false;
    std::string failure;
    const auto under_way = transport_->send(request, [&](const Result<kube::Response>& response) {
      done = true;
      if (!response)
        failure = response.error().message;
      else if (auto error = kube::error_of(request, *response))
        failure = error->message;
    });
    if (!run_until([&] { return done; }) || !failure.empty())
      std::fprintf(stderr, "%s: %s\n", describe(request).c_str(), failure.c_str());
  }

  net::AsioLoop loop_;
  std::unique_ptr<kube::Transport> transport_;
  std::string ns_;
};

}  // namespace

std::vector<ClusterKind> real_clusters() {
  const char* kubeconfig = std::getenv(kVariable);
  if (kubeconfig == nullptr || *kubeconfig == '\0') {
    return {{"real", nullptr,
             std::string("no real API server here: set ") + kVariable + " to a kubeconfig whose user may do anything"}};
  }
  return {{"real", [path = std::string(kubeconfig)] { return std::make_unique<RealCluster>(path); }}};
}

}  // namespace pitcrew::contract
