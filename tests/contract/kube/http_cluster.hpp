#pragma once

#include <memory>
#include <string>

#include "lib/kube/http/http_transport.hpp"
#include "lib/local/http/http_api.hpp"
#include "tests/contract/kube/cluster.hpp"
#include "tests/contract/net/tcp_gate.hpp"

namespace pitcrew::contract {

inline constexpr char kToken[] = "contract-token";

// About a pod of namespace "ns"; `filler` makes the new pod as large as a test needs it.
kube::Request pod_request(kube::Verb verb, const std::string& name = "");
kube::Request create_pod_request(const std::string& name, const std::string& filler = "");

struct HttpClusterSettings {
  bool tls = false;  // with a client certificate and a token
  size_t slice = 0;  // bytes that come at once
};

// The API server in memory behind HTTP, a gate before it, and a client's way through both.
class HttpCluster : public Cluster {
 public:
  explicit HttpCluster(HttpClusterSettings settings);

  Loop& loop() override { return loop_; }
  kube::Transport& transport() override { return *transport_; }
  std::string ns() override { return "contract"; }
  bool collects_garbage() const override { return true; }
  bool run_until(const std::function<bool()>& condition) override { return loop_.run_until(condition, seconds(60)); }

  net::AsioLoop& asio() { return loop_; }
  local::ApiServer& server() { return server_; }
  net::testing::TcpGate& gate() { return *gate_; }
  kube::HttpTransport& http() { return *transport_; }
  kube::ClusterConfig config() const;  // of the way through the gate
  local::HttpApiSettings& api_settings() { return api_settings_; }
  // Sends through `transport` and runs the loop until the answer is there.
  Result<kube::Response> answer(kube::Transport& transport, kube::Request request);
  // Asks `reply` for every request that comes (nothing: the server answers), behind a new front.
  void intercept(std::function<std::optional<net::HttpResponse>(const net::HttpRequest&)> reply);
  // Puts another front in the place of the first, with what api_settings() says now, at another port.
  void serve();
  void connect(const kube::ClusterConfig& config, kube::HttpTransportSettings settings = {});
  local::HttpApi& api() { return *api_; }

 private:
  HttpClusterSettings settings_;
  net::AsioLoop loop_;
  local::ApiServer server_{loop_};
  local::HttpApiSettings api_settings_;
  std::unique_ptr<local::HttpApi> api_;
  std::unique_ptr<net::testing::TcpGate> gate_;
  std::unique_ptr<kube::HttpTransport> transport_;
};

}  // namespace pitcrew::contract
