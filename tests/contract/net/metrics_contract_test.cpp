#include <optional>

#include <gmock/gmock.h>
#include <prometheus/counter.h>
#include <prometheus/registry.h>

#include "lib/net/http_client.hpp"
#include "lib/net/metrics/metrics_endpoint.hpp"
#include "tests/contract/net/net_fixture.hpp"

namespace pitcrew::net::testing {
namespace {

using ::testing::HasSubstr;

class MetricsContract : public NetTest {
 protected:
  std::shared_ptr<prometheus::Registry> registry = std::make_shared<prometheus::Registry>();
  std::unique_ptr<MetricsEndpoint> endpoint;

  void listen(HealthChecks checks = {}) {
    HttpServerSettings settings;
    settings.address = kLoopback;
    endpoint = *MetricsEndpoint::listen(loop, settings, registry, std::move(checks));
  }
  HttpResponse get(const std::string& target, const std::string& method = "GET") {
    std::optional<Result<HttpResponse>> answer;
    HttpClientSettings settings;
    settings.address = endpoint->address();
    const auto exchange = http_request(loop, settings, {method, target, {}, "", {}},
                                       {[&](Result<HttpResponse> response) { answer = std::move(response); }});
    EXPECT_TRUE(eventually([&] { return answer.has_value(); }));
    return answer && *answer ? **answer : HttpResponse{};
  }
};

TEST_F(MetricsContract, the_registry_and_the_process_are_shown_as_text) {
  auto& family = prometheus::BuildCounter().Name("pitcrew_test_total").Help("Counted.").Register(*registry);
  family.Add({{"kind", "a"}}).Increment(3);
  listen();
  const HttpResponse answer = get("/metrics");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(*find_header(answer.headers, "Content-Type"), "text/plain; version=0.0.4; charset=utf-8");
  EXPECT_THAT(answer.body, HasSubstr("pitcrew_test_total{kind=\"a\"} 3"));
  for (const char* name :
       {"process_cpu_seconds_total ", "process_resident_memory_bytes ", "process_open_fds ", "process_max_fds ",
        "process_threads ", "process_start_time_seconds ", "process_heap_used_bytes ", "process_heap_free_bytes "}) {
    EXPECT_THAT(answer.body, HasSubstr("\n" + std::string(name))) << name;
  }
}

TEST_F(MetricsContract, health_and_readiness_are_asked_each_time) {
  bool ready = false;
  listen({.ready = [&]() -> Status {
    if (!ready) return Error(Code::kUnavailable, "the cache is not filled yet");
    return {};
  }});
  EXPECT_EQ(get("/healthz").status, 200);
  EXPECT_EQ(get("/readyz").status, 503);
  EXPECT_EQ(get("/readyz").body, "the cache is not filled yet\n");
  ready = true;
  EXPECT_EQ(get("/readyz").status, 200);
}

TEST_F(MetricsContract, other_paths_and_methods_are_refused) {
  listen();
  EXPECT_EQ(get("/").status, 404);
  EXPECT_EQ(get("/metrics", "POST").status, 405);
}

}  // namespace
}  // namespace pitcrew::net::testing
