#include "tests/contract/kube/http_cluster.hpp"

#include "lib/kube/types/pod.hpp"
#include "tests/contract/net/net_fixture.hpp"

namespace pitcrew::contract {
namespace {

template <typename T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  return *std::move(result);
}

const net::TlsClientIdentity& client_identity() {
  static const net::TlsClientIdentity kIdentity = [] {
    const Instant now = RealClock().now();
    return must(net::testing::authority().issue_client("operator", {now - hours(1), now + hours(24)}));
  }();
  return kIdentity;
}

}  // namespace

kube::Request pod_request(kube::Verb verb, const std::string& name) {
  kube::Request made{.verb = verb, .type = kube::Pod::type(), .key = {"ns", name}};
  if (verb == kube::Verb::kWatch) made.query.emplace_back("watch", "1");
  return made;
}

kube::Request create_pod_request(const std::string& name, const std::string& filler) {
  kube::Request made = pod_request(kube::Verb::kCreate);
  made.body = kube::Payload::of({{"metadata", {{"name", name}, {"namespace", "ns"}, {"annotations", {{"f", filler}}}}},
                                 {"spec", Json::object()}});
  return made;
}

HttpCluster::HttpCluster(HttpClusterSettings settings) : settings_(settings) {
  if (settings_.tls) {
    api_settings_.identity = net::testing::server_identity();
    api_settings_.identity->client_ca_pem = net::testing::authority().certificate_pem();
    api_settings_.authenticate = [](const std::string& token) { return token == kToken; };
  }
  serve();
  connect(config());
}

void HttpCluster::serve() {
  api_ = must(local::HttpApi::serve(loop_, server_, api_settings_));
  gate_ = std::make_unique<net::testing::TcpGate>(loop_, api_->address(), Random(net::testing::kSeed));
  gate_->slice(settings_.slice);
}

Result<kube::Response> HttpCluster::answer(kube::Transport& transport, kube::Request request) {
  std::optional<Result<kube::Response>> answer;
  const auto call =
      transport.send(std::move(request), [&answer](Result<kube::Response> reply) { answer.emplace(std::move(reply)); });
  if (!run_until([&] { return answer.has_value(); })) return Error(Code::kInternal, "never answered");
  return *std::move(answer);
}

void HttpCluster::intercept(std::function<std::optional<net::HttpResponse>(const net::HttpRequest&)> reply) {
  api_settings_.intercept = std::move(reply);
  serve();
}

void HttpCluster::connect(const kube::ClusterConfig& config, kube::HttpTransportSettings settings) {
  transport_ = must(kube::HttpTransport::create(loop_, config, std::move(settings)));
}

kube::ClusterConfig HttpCluster::config() const {
  kube::ClusterConfig config;
  config.name = "contract";
  config.server = (settings_.tls ? "https://" : "http://") + to_string(gate_->address());
  if (settings_.tls) {
    config.ca_pem = net::testing::authority().certificate_pem();
    config.tls_server_name = net::testing::kServerName;
    config.token = kToken;
    config.client_certificate_pem = client_identity().certificate_pem;
    config.client_key_pem = client_identity().key_pem;
  }
  return config;
}

std::vector<ClusterKind> http_clusters() {
  const auto kind = [](const char* name, HttpClusterSettings settings) {
    return ClusterKind{name, [settings] { return std::make_unique<HttpCluster>(settings); }};
  };
  return {kind("http", {}), kind("https", {.tls = true}), kind("http_in_slices", {.slice = 100}),
          kind("https_in_slices", {.tls = true, .slice = 100})};
}

}  // namespace pitcrew::contract
