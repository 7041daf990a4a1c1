#include <fstream>

#include <gtest/gtest.h>

#include "lib/kube/cpprest/cpprest_transport.hpp"
#include "lib/kube/types/pod.hpp"
#include "tests/contract/kube/http_cluster.hpp"
#include "tests/contract/net/net_fixture.hpp"

namespace pitcrew::contract {
namespace {

using kube::Payload;
using kube::Pod;
using kube::Request;
using kube::Response;
using kube::Verb;

// What cpprestsdk does on its own account and must not do here (docs/design/0004-transports.md).
class CpprestFaults : public testing::Test {
 protected:
  void connect(kube::CpprestSettings settings = {}) {
    calls.reset();
    auto made = kube::CpprestTransport::create(cluster.asio(), config ? *config : cluster.config(), settings);
    ASSERT_TRUE(made) << made.error().message;
    calls = *std::move(made);
  }
  Result<Response> send(Request request) { return cluster.answer(*calls, std::move(request)); }
  void intercept(std::function<std::optional<net::HttpResponse>(const net::HttpRequest&)> reply) {
    cluster.intercept(std::move(reply));
    connect();
  }

  HttpCluster cluster{{.tls = true}};
  std::optional<kube::ClusterConfig> config;
  std::unique_ptr<kube::CpprestTransport> calls;
};

TEST_F(CpprestFaults, bug_15_a_write_whose_connection_breaks_is_sent_once) {
  int posts = 0;
  intercept([&](const net::HttpRequest& request) -> std::optional<net::HttpResponse> {
    if (request.method == "POST" && ++posts == 3) cluster.gate().cut();
    return std::nullopt;
  });
  EXPECT_TRUE(send(pod_request(Verb::kList)));  // leaves a kept connection
  EXPECT_TRUE(send(create_pod_request("a")));
  EXPECT_TRUE(send(create_pod_request("b")));
  EXPECT_EQ(send(create_pod_request("c")).error().code, Code::kUnavailable);
  EXPECT_EQ(posts, 3);
  EXPECT_EQ(cluster.server().count(Pod::type()), 3u);
}

TEST_F(CpprestFaults, bug_16_a_redirect_is_not_followed) {
  int asked = 0;
  intercept([&](const net::HttpRequest&) -> std::optional<net::HttpResponse> {
    ++asked;
    return net::HttpResponse{302, {{"Location", "/api/v1/pods"}}, ""};
  });
  const auto answer = send(pod_request(Verb::kList));
  ASSERT_FALSE(answer);
  EXPECT_NE(answer.error().message.find("redirect"), std::string::npos) << answer.error().message;
  EXPECT_EQ(asked, 1);
}

TEST_F(CpprestFaults, bug_14_a_list_has_no_limit_of_size_but_each_object_has) {
  kube::CpprestSettings settings;
  settings.http.max_object_bytes = 10'000;
  connect(settings);
  for (int i = 0; i < 200; ++i)
    cluster.server().handle(create_pod_request("p" + std::to_string(i), std::string(5000, 'x')));
  const auto list = send(pod_request(Verb::kList));
  ASSERT_TRUE(list) << list.error().message;
  EXPECT_EQ(list->items.size(), 200u);
  cluster.server().handle(create_pod_request("big", std::string(20'000, 'x')));
  EXPECT_EQ(send(pod_request(Verb::kList)).error().code, Code::kResourceExhausted);
  EXPECT_EQ(send(pod_request(Verb::kGet, "big")).error().code, Code::kResourceExhausted);
  EXPECT_TRUE(send(pod_request(Verb::kGet, "p1")));
}

TEST_F(CpprestFaults, only_the_configured_root_and_the_right_name_are_believed) {
  const Instant now = cluster.loop().now();
  const auto other = net::CertificateAuthority::create("other", {now - hours(1), now + hours(24)});
  ASSERT_TRUE(other);
  config = cluster.config();
  config->ca_pem = other->certificate_pem();
  connect();
  EXPECT_EQ(send(pod_request(Verb::kList)).error().code, Code::kUnauthenticated);
  config = cluster.config();
  config->tls_server_name = "another.name";
  connect();
  EXPECT_EQ(send(pod_request(Verb::kList)).error().code, Code::kUnauthenticated);
  config = cluster.config();
  connect();
  EXPECT_TRUE(send(pod_request(Verb::kList)));
}

TEST_F(CpprestFaults, nothing_from_a_dead_node_ends_at_the_deadline) {
  connect();
  EXPECT_TRUE(send(pod_request(Verb::kList)));
  cluster.gate().stop_both(true);
  Request list = pod_request(Verb::kList);
  list.timeout = milliseconds(200);
  EXPECT_EQ(send(std::move(list)).error().code, Code::kDeadlineExceeded);
}

TEST_F(CpprestFaults, what_is_dropped_says_nothing_more_and_the_transport_can_go_with_calls_under_way) {
  connect();
  for (int i = 0; i < 200; ++i)
    cluster.server().handle(create_pod_request("p" + std::to_string(i), std::string(5000, 'x')));
  int told = 0;
  bool dropped = false;
  kube::CallPtr mid;
  Request list = pod_request(Verb::kList);
  list.reduce = [&](const Payload&) {
    dropped = true;
    mid.reset();
  };
  mid = calls->send(list, [&](const Result<Response>&) { ++told; });
  ASSERT_TRUE(cluster.run_until([&] { return dropped; }));
  EXPECT_TRUE(send(pod_request(Verb::kGet, "p1")));
  bool begun = false;
  list.reduce = [&](const Payload&) { begun = true; };
  std::vector<kube::CallPtr> orphans;
  for (int i = 0; i < 5; ++i) orphans.push_back(calls->send(list, [&](const Result<Response>&) { ++told; }));
  ASSERT_TRUE(cluster.run_until([&] { return begun; }));
  const int before = told;
  calls.reset();
  connect();
  EXPECT_TRUE(send(pod_request(Verb::kGet, "p1")));
  EXPECT_EQ(told, before);
}

TEST_F(CpprestFaults, its_pool_has_two_threads) {
  connect();
  EXPECT_TRUE(send(pod_request(Verb::kList)));
  std::ifstream status("/proc/self/status");
  int threads = 0;
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("Threads:", 0) == 0) threads = std::stoi(line.substr(8));
  }
  EXPECT_LE(threads, 4);  // ours, its two, and one that Asio may keep
}

}  // namespace
}  // namespace pitcrew::contract
