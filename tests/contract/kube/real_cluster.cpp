#include <cstdlib>

#include <unistd.h>

#include "lib/kube/cpprest/cpprest_transport.hpp"
#include "tests/contract/kube/cluster.hpp"

namespace pitcrew::contract {
namespace {

constexpr char kVariable[] = "PITCREW_CONTRACT_KUBECONFIG";

template <typename T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  return *std::move(result);
}

// A real API server, in a namespace of this test's own. No controllers and no kubelet are expected to run.
class RealCluster final : public Cluster {
 public:
  RealCluster(const std::string& kubeconfig, bool cpprest) {
    auto config = kube::load_kubeconfig(kubeconfig);
    if (!config) throw std::runtime_error(config.error().message);
    if (cpprest) {
      transport_ = must(kube::CpprestTransport::create(loop_, *config));
    } else {
      transport_ = must(kube::connect(loop_, *config));
    }
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
    const std::string why =
        std::string("no real API server here: set ") + kVariable + " to a kubeconfig whose user may do anything";
    return {{"real", nullptr, why}, {"real_cpprest", nullptr, why}};
  }
  const auto kind = [path = std::string(kubeconfig)](const char* name, bool cpprest) {
    return ClusterKind{name, [path, cpprest] { return std::make_unique<RealCluster>(path, cpprest); }};
  };
  return {kind("real", false), kind("real_cpprest", true)};
}

}  // namespace pitcrew::contract
