#include <gtest/gtest.h>

#include "lib/base/testing/temp_folder.hpp"
#include "lib/kube/cache/informer.hpp"
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
using net::testing::TcpGate;

// A client, a gate that treats its bytes as networks do, and the API server in memory behind HTTP.
class HttpFaults : public testing::TestWithParam<bool> {
 protected:
  HttpFaults() : cluster({.tls = GetParam()}) {}

  testing::AssertionResult eventually(const std::function<bool()>& condition) {
    if (cluster.run_until(condition)) return testing::AssertionSuccess();
    return testing::AssertionFailure() << "not within a minute";
  }
  Result<Response> send(Request request) { return cluster.answer(cluster.transport(), std::move(request)); }
  void create_pod(const std::string& name, const std::string& filler = "") {
    cluster.server().handle(create_pod_request(name, filler));
  }

  struct Seen {
    std::vector<std::string> names;
    std::optional<Status> end;
  };
  kube::CallPtr watch(Seen& seen) {
    return cluster.transport().watch(
        pod_request(Verb::kWatch),
        {[&seen](const kube::WatchEvent& event) { seen.names.push_back((**event.object.json())["metadata"]["name"]); },
         [&seen](Status status) { seen.end = std::move(status); }});
  }
  void intercept(std::function<std::optional<net::HttpResponse>(const net::HttpRequest&)> reply) {
    cluster.intercept(std::move(reply));
    cluster.connect(cluster.config());
  }

  HttpCluster cluster;
  TempFolder folder;
};

TEST_P(HttpFaults, a_connection_is_kept_and_used_again) {
  create_pod("p");
  for (int i = 0; i < 10; ++i) EXPECT_EQ(send(pod_request(Verb::kGet, "p"))->status, 200);
  EXPECT_EQ(cluster.http().metrics().connections, 1u);
  EXPECT_EQ(cluster.http().metrics().reused, 9u);
}

TEST_P(HttpFaults, more_calls_than_may_be_busy_wait_in_line) {
  kube::HttpTransportSettings settings;
  settings.max_busy = 2;
  cluster.connect(cluster.config(), settings);
  int answered = 0;
  std::vector<kube::CallPtr> calls;
  for (int i = 0; i < 20; ++i) {
    calls.push_back(cluster.transport().send(create_pod_request("p" + std::to_string(i)),
                                             [&](const Result<Response>& r) { answered += r && r->status == 201; }));
  }
  ASSERT_TRUE(eventually([&] { return answered == 20; }));
  EXPECT_LE(cluster.http().metrics().connections, 2u);
}

TEST_P(HttpFaults, a_server_that_refuses_is_unavailable_until_it_is_back) {
  cluster.gate().refuse(true);
  EXPECT_EQ(send(pod_request(Verb::kList)).error().code, Code::kUnavailable);
  cluster.gate().refuse(false);
  EXPECT_TRUE(send(pod_request(Verb::kList)));
}

TEST_P(HttpFaults, bug_03_nothing_from_a_dead_node_is_a_deadline_and_the_end_of_a_watch) {
  kube::HttpTransportSettings settings;
  settings.watch_idle_limit = milliseconds(200);
  cluster.connect(cluster.config(), settings);
  create_pod("p");
  Seen seen;
  const auto call = watch(seen);
  ASSERT_TRUE(eventually([&] { return seen.names.size() == 1 || seen.end; }));
  cluster.gate().stop_both(true);
  ASSERT_TRUE(eventually([&] { return seen.end.has_value(); }));
  EXPECT_EQ(seen.end->error().code, Code::kUnavailable);
  Request get = pod_request(Verb::kGet, "p");
  get.timeout = milliseconds(200);
  EXPECT_EQ(send(std::move(get)).error().code, Code::kDeadlineExceeded);
}

TEST_P(HttpFaults, bug_07_a_token_file_is_read_again_when_the_token_is_refused) {
  if (!GetParam()) GTEST_SKIP() << "tokens are sent over TLS only";
  kube::ClusterConfig config = cluster.config();
  config.token.clear();
  config.token_file = folder.write("token", "old\n");
  cluster.connect(config);
  EXPECT_EQ(send(pod_request(Verb::kList))->status, 401);
  EXPECT_EQ(cluster.http().metrics().unauthorized, 1u);  // the same token is not tried again
  folder.write("token", kToken);
  EXPECT_EQ(send(create_pod_request("p"))->status, 201);
  EXPECT_EQ(cluster.http().metrics().unauthorized, 2u);
  EXPECT_EQ(send(pod_request(Verb::kList))->status, 200);
  std::filesystem::remove(config.token_file);  // the last one is better than none
  EXPECT_EQ(send(pod_request(Verb::kList))->status, 200);
}

TEST_P(HttpFaults, a_rotated_root_is_taken_up_by_the_next_connection) {
  if (!GetParam()) GTEST_SKIP() << "needs TLS";
  const Instant now = cluster.loop().now();
  auto next = net::CertificateAuthority::create("next", {now - hours(1), now + hours(24)});
  ASSERT_TRUE(next);
  kube::ClusterConfig config = cluster.config();
  config.ca_file = folder.write("ca.crt", std::exchange(config.ca_pem, ""));
  cluster.connect(config);
  EXPECT_EQ(send(pod_request(Verb::kList))->status, 200);
  auto identity = next->issue({{net::testing::kServerName}, {}}, {now - hours(1), now + hours(24)});
  ASSERT_TRUE(identity);
  identity->client_ca_pem = net::testing::authority().certificate_pem();
  ASSERT_TRUE(cluster.api().set_identity(*identity));
  cluster.gate().cut();
  EXPECT_EQ(send(pod_request(Verb::kList)).error().code, Code::kUnauthenticated);
  folder.write("ca.crt", next->certificate_pem());
  EXPECT_EQ(send(create_pod_request("p"))->status, 201);
}

TEST_P(HttpFaults, neither_end_talks_to_somebody_else) {
  if (!GetParam()) GTEST_SKIP() << "needs TLS";
  const Instant now = cluster.loop().now();
  const auto other = net::CertificateAuthority::create("other", {now - hours(1), now + hours(24)});
  ASSERT_TRUE(other);
  kube::ClusterConfig config = cluster.config();
  config.ca_pem = other->certificate_pem();
  cluster.connect(config);
  const auto untrusted = send(pod_request(Verb::kList));
  EXPECT_EQ(untrusted.error().code, Code::kUnauthenticated);
  EXPECT_NE(untrusted.error().message.find("certificate refused"), std::string::npos) << untrusted.error().message;
  config = cluster.config();
  config.tls_server_name = "another.name";
  cluster.connect(config);
  EXPECT_EQ(send(pod_request(Verb::kList)).error().code, Code::kUnauthenticated);
  config = cluster.config();
  config.client_certificate_pem.clear();
  config.client_key_pem.clear();
  cluster.connect(config);
  EXPECT_FALSE(send(pod_request(Verb::kList)));
  config = cluster.config();
  config.ca_pem.clear();
  config.insecure_skip_tls_verify = true;
  cluster.connect(config);
  EXPECT_TRUE(send(pod_request(Verb::kList)));
}

TEST_P(HttpFaults, bug_13_a_long_list_is_decoded_in_pieces_with_the_loops_other_tasks_between_them) {
  for (int i = 0; i < 500; ++i) create_pod("p" + std::to_string(i), std::string(4000, 'x'));
  int ticks = 0;
  std::function<void()> tick = [&] {
    ++ticks;
    cluster.loop().post(tick);
  };
  tick();
  std::vector<int> at;
  Request list = pod_request(Verb::kList);
  list.reduce = [&](const Payload& object) {
    object.reduce_to<Pod>();
    at.push_back(ticks);
  };
  const auto response = send(std::move(list));
  ASSERT_TRUE(response) << response.error().message;
  EXPECT_EQ(response->items.size(), 500u);
  ASSERT_EQ(at.size(), 500u);
  EXPECT_GT(at.back() - at.front(), 20);
  EXPECT_EQ((*response->items.at(7).as<Pod>())->metadata.ns, "ns");
  EXPECT_TRUE(response->items.at(7).text().empty());
  tick = [] {};
}

TEST_P(HttpFaults, bug_14_a_list_has_no_limit_of_size_but_each_object_has) {
  kube::HttpTransportSettings settings;
  settings.max_object_bytes = 10'000;
  cluster.connect(cluster.config(), settings);
  for (int i = 0; i < 100; ++i) create_pod("p" + std::to_string(i), std::string(5000, 'x'));
  EXPECT_EQ(send(pod_request(Verb::kList))->items.size(), 100u);
  create_pod("big", std::string(20'000, 'x'));
  EXPECT_EQ(send(pod_request(Verb::kList)).error().code, Code::kResourceExhausted);
  EXPECT_EQ(send(pod_request(Verb::kGet, "big")).error().code, Code::kResourceExhausted);
  EXPECT_TRUE(send(pod_request(Verb::kGet, "p1")));
}

TEST_P(HttpFaults, bug_15_a_write_whose_connection_breaks_is_sent_once_and_a_read_again) {
  int posts = 0;
  int gets = 0;
  intercept([&](const net::HttpRequest& request) -> std::optional<net::HttpResponse> {
    if (request.method == "POST" && ++posts == 1) cluster.gate().cut();
    if (request.method == "GET" && ++gets == 2) cluster.gate().cut();
    return std::nullopt;
  });
  EXPECT_TRUE(send(pod_request(Verb::kList)));  // leaves a kept connection
  const auto read = send(pod_request(Verb::kList));
  EXPECT_TRUE(read) << read.error().message;
  EXPECT_EQ(gets, 3);
  EXPECT_EQ(cluster.http().metrics().repeated, 1u);
  const auto lost = send(create_pod_request("p"));
  ASSERT_FALSE(lost);
  EXPECT_EQ(lost.error().code, Code::kUnavailable);
  EXPECT_EQ(posts, 1);
  EXPECT_EQ(cluster.server().count(Pod::type()), 1u);
}

TEST_P(HttpFaults, bug_16_a_redirect_is_not_followed) {
  int asked = 0;
  intercept([&](const net::HttpRequest&) -> std::optional<net::HttpResponse> {
    ++asked;
    return net::HttpResponse{302, {{"Location", "http://127.0.0.1:1/steal"}}, ""};
  });
  const auto answer = send(pod_request(Verb::kList));
  ASSERT_FALSE(answer);
  EXPECT_NE(answer.error().message.find("redirect"), std::string::npos) << answer.error().message;
  Seen seen;
  const auto call = watch(seen);
  ASSERT_TRUE(eventually([&] { return seen.end.has_value(); }));
  EXPECT_FALSE(*seen.end);
  EXPECT_EQ(asked, 2);
}

TEST_P(HttpFaults, retry_after_is_read_as_seconds_and_as_a_date) {
  std::string value = "7";
  intercept([&](const net::HttpRequest&) -> std::optional<net::HttpResponse> {
    return net::HttpResponse{429, {{"Retry-After", value}}, "slow down"};
  });
  auto answer = send(pod_request(Verb::kList));
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->retry_after, Duration(seconds(7)));
  EXPECT_EQ(kube::error_of(pod_request(Verb::kList), *answer)->code, Code::kTooManyRequests);
  value = "Fri, 31 Dec 1999 23:59:59 GMT";
  EXPECT_EQ(send(pod_request(Verb::kList))->retry_after, Duration(0));
  EXPECT_EQ(cluster.http().metrics().throttled, 2u);
}

TEST_P(HttpFaults, a_login_page_is_no_list_and_no_watch) {
  intercept([&](const net::HttpRequest&) -> std::optional<net::HttpResponse> {
    return net::HttpResponse{200, {{"Content-Type", "text/html"}}, "<html>please log in</html>"};
  });
  EXPECT_EQ(send(pod_request(Verb::kList)).error().code, Code::kDataLoss);
  Seen seen;
  const auto call = watch(seen);
  ASSERT_TRUE(eventually([&] { return seen.end.has_value(); }));
  EXPECT_EQ(seen.end->error().code, Code::kDataLoss);
}

TEST_P(HttpFaults, a_flipped_bit_is_noticed_by_tls_and_the_next_call_goes_through) {
  if (!GetParam()) GTEST_SKIP() << "without TLS a flipped bit is a text like any other";
  create_pod("p");
  EXPECT_TRUE(send(pod_request(Verb::kGet, "p")));
  cluster.gate().corrupt_next(TcpGate::Direction::kToClient);
  EXPECT_FALSE(send(create_pod_request("q")));
  EXPECT_TRUE(send(pod_request(Verb::kGet, "p")));
}

TEST_P(HttpFaults, a_watch_that_is_cut_or_half_closed_ends_with_an_error_and_no_half_event) {
  for (const bool half : {false, true}) {
    Seen seen;
    const auto call = watch(seen);
    ASSERT_TRUE(eventually([&] { return cluster.api().watches() == 1; }));
    const std::string name = half ? "b" : "a";
    create_pod(name, std::string(100'000, 'x'));
    ASSERT_TRUE(eventually([&] { return !seen.names.empty() && seen.names.back() == name; }));
    if (half) {
      cluster.gate().half_close(TcpGate::Direction::kToClient);
    } else {
      cluster.gate().cut_after(TcpGate::Direction::kToClient, 150'000);
      create_pod("cut", std::string(100'000, 'x'));
    }
    ASSERT_TRUE(eventually([&] { return seen.end.has_value(); }));
    EXPECT_EQ(seen.end->error().code, Code::kUnavailable) << seen.end->error().message;
    EXPECT_EQ(seen.names.back(), name);
    cluster.gate().cut_after(TcpGate::Direction::kToClient, 0);
    cluster.gate().cut();
    ASSERT_TRUE(eventually([&] { return cluster.api().watches() == 0; }));
    cluster.server().handle(pod_request(Verb::kDelete, "cut"));
  }
}

TEST_P(HttpFaults, what_is_dropped_says_nothing_more) {
  for (int i = 0; i < 50; ++i) create_pod("p" + std::to_string(i), std::string(4000, 'x'));
  int told = 0;
  auto call = cluster.transport().send(pod_request(Verb::kList), [&](const Result<Response>&) { ++told; });
  Request list = pod_request(Verb::kList);
  kube::CallPtr mid;
  bool dropped = false;
  list.reduce = [&](const Payload&) {
    dropped = true;
    mid.reset();
  };
  mid = cluster.transport().send(std::move(list), [&](const Result<Response>&) { ++told; });
  call.reset();
  Seen seen;
  kube::CallPtr stream;
  stream = cluster.transport().watch(
      pod_request(Verb::kWatch), {[&](const kube::WatchEvent&) { stream.reset(); }, [&](const Status&) { ++told; }});
  ASSERT_TRUE(eventually([&] { return dropped && !stream; }));
  EXPECT_TRUE(send(pod_request(Verb::kGet, "p1")));
  EXPECT_EQ(told, 0);
  // And a transport that goes before its calls takes their callbacks with it.
  auto orphan = cluster.transport().send(pod_request(Verb::kList), [&](const Result<Response>&) { ++told; });
  cluster.connect(cluster.config());
  EXPECT_TRUE(send(pod_request(Verb::kGet, "p1")));
  EXPECT_EQ(told, 0);
}

// The informer's promise over real sockets: whatever the network does, in the end it shows what the server has.
TEST_P(HttpFaults, an_informer_becomes_what_the_server_has_through_a_bad_network) {
  kube::ReflectorSettings quick;
  quick.backoff_first = milliseconds(5);
  quick.backoff_limit = milliseconds(20);
  quick.short_watch = milliseconds(1);
  quick.idle_limit = milliseconds(500);
  kube::Informer<Pod> pods(cluster.loop(), cluster.transport(), 5, {.ns = "ns"}, quick);
  pods.start();
  ASSERT_TRUE(eventually([&] { return pods.synced(); }));
  Random random(net::testing::kSeed);
  RecordProperty("seed", std::to_string(net::testing::kSeed));
  cluster.gate().slice(97);
  for (int round = 0; round < 60; ++round) {
    create_pod("p" + std::to_string(random.below(30)), std::string(random.below(3000), 'x'));
    if (random.chance(0.3)) cluster.server().handle(pod_request(Verb::kDelete, "p" + std::to_string(random.below(30))));
    if (random.chance(0.15)) cluster.gate().cut();
    if (random.chance(0.1)) cluster.gate().half_close(TcpGate::Direction::kToClient);
    if (random.chance(0.1)) cluster.server().compact();
    if (GetParam() && random.chance(0.1)) cluster.gate().corrupt_next(TcpGate::Direction::kToClient);
    if (random.chance(0.3)) send(pod_request(Verb::kGet, "p1")).ok();
  }
  EXPECT_TRUE(eventually([&] {
    bool same = pods.store().size() == cluster.server().count(Pod::type());
    cluster.server().for_each(Pod::type(), [&](const Payload& payload) {
      const auto there = *payload.as<Pod>();
      const auto cached = pods.store().get(there->metadata.key());
      same = same && cached && cached->metadata.resource_version == there->metadata.resource_version;
    });
    return same;
  }));
}

INSTANTIATE_TEST_SUITE_P(Over, HttpFaults, testing::Bool(),
                         [](const auto& info) { return info.param ? "https" : "http"; });

}  // namespace
}  // namespace pitcrew::contract
