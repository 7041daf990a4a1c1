#include "tests/contract/kube/memory_world.hpp"

namespace pitcrew::contract {
namespace {

using kube::Client;
using kube::Payload;
using kube::Pod;
using kube::Verb;
using local::RequestFault;

class ClientFaults : public MemoryWorld {
 protected:
  Result<Payload> create(Client& client, const std::string& name) {
    std::optional<Result<Payload>> answer;
    client.create_raw(Pod::type(), pod(name), [&](Result<Payload> result) { answer.emplace(std::move(result)); });
    loop.run_for(minutes(5));
    return answer ? *std::move(answer) : Error(Code::kInternal, "never answered");
  }
  Result<kube::Ptr<Pod>> get(Client& client, const std::string& name) {
    std::optional<Result<kube::Ptr<Pod>>> answer;
    client.get<Pod>({"ns", name}, [&](Result<kube::Ptr<Pod>> result) { answer.emplace(std::move(result)); });
    loop.run_for(minutes(5));
    return answer ? *std::move(answer) : Error(Code::kInternal, "never answered");
  }

  Client client{loop, transport, 1};
};

TEST_F(ClientFaults, waits_as_long_as_a_429_says_and_then_succeeds) {
  fail(Verb::kCreate, 2, {.answer = local::too_many_requests(seconds(7))});
  std::optional<Instant> answered;
  const Instant start = loop.now();
  client.create_raw(Pod::type(), pod("p"), [&](const Result<Payload>& result) {
    EXPECT_TRUE(result);
    answered = loop.now();
  });
  loop.run_for(minutes(1));
  ASSERT_TRUE(answered);
  EXPECT_EQ(*answered - start, seconds(14));
  EXPECT_EQ(client.metrics().retries, 2u);
}

TEST_F(ClientFaults, gives_up_on_a_server_that_always_says_later) {
  fail(Verb::kCreate, 1000, {.answer = local::too_many_requests(seconds(1))});
  const auto answer = create(client, "p");
  EXPECT_EQ(answer.error().code, Code::kTooManyRequests);
  EXPECT_EQ(answer.error().retry_after, milliseconds(1000));
  EXPECT_EQ(client.metrics().requests, 10u);
}

TEST_F(ClientFaults, bug_15_a_create_whose_answer_was_lost_is_not_repeated) {
  fail(Verb::kCreate, 1, {.lost_reply = Error(Code::kUnavailable, "connection reset")});
  EXPECT_EQ(create(client, "p").error().code, Code::kUnavailable);
  EXPECT_EQ(client.metrics().requests, 1u);
  EXPECT_EQ(server.count(Pod::type()), 1u);
  EXPECT_EQ(create(client, "p").error().code, Code::kAlreadyExists);
}

TEST_F(ClientFaults, a_read_that_got_no_answer_is_repeated) {
  create_pod("p");
  fail(Verb::kGet, 2, {.before = Error(Code::kUnavailable, "connection refused")});
  EXPECT_TRUE(get(client, "p"));
  EXPECT_EQ(client.metrics().requests, 3u);
}

TEST_F(ClientFaults, a_request_into_a_black_hole_ends_at_its_deadline) {
  transport.set_connected(false);
  std::optional<Instant> answered;
  const Instant start = loop.now();
  client.create_raw(Pod::type(), pod("p"), [&](const Result<Payload>& result) {
    EXPECT_EQ(result.error().code, Code::kDeadlineExceeded);
    answered = loop.now();
  });
  loop.run_for(minutes(1));
  ASSERT_TRUE(answered);
  EXPECT_EQ(*answered - start, seconds(30));
}

TEST_F(ClientFaults, an_answer_slower_than_the_deadline_is_none_although_the_server_did_it) {
  fail(Verb::kCreate, 1, {.request_delay = seconds(10), .reply_delay = seconds(40)});
  EXPECT_EQ(create(client, "p").error().code, Code::kDeadlineExceeded);
  EXPECT_EQ(server.count(Pod::type()), 1u);
}

TEST_F(ClientFaults, what_a_dead_client_had_sent_still_takes_effect_and_nobody_is_told) {
  bool told = false;
  {
    Client mortal(loop, transport, 2);
    fail(Verb::kCreate, 1, {.request_delay = seconds(1)});
    mortal.create_raw(Pod::type(), pod("p"), [&](const Result<Payload>&) { told = true; });
    loop.run_ready();
  }
  loop.run_for(seconds(5));
  EXPECT_FALSE(told);
  EXPECT_EQ(server.count(Pod::type()), 1u);
}

TEST_F(ClientFaults, a_callback_may_destroy_its_client) {
  auto mortal = std::make_unique<Client>(loop, transport, 2);
  create_pod("p");
  mortal->get<Pod>({"ns", "p"}, [&](const Result<kube::Ptr<Pod>>& result) {
    EXPECT_TRUE(result);
    mortal.reset();
  });
  loop.run_for(seconds(1));
  EXPECT_EQ(mortal, nullptr);
}

TEST_F(ClientFaults, the_rate_limit_holds_and_its_setting_works) {
  Client slow(loop, transport, 3, {.rate = 10, .burst = 5});
  int done = 0;
  for (int i = 0; i < 25; ++i) {
    slow.get<Pod>({"ns", "none"}, [&](const Result<kube::Ptr<Pod>>&) { ++done; });
  }
  loop.run_for(milliseconds(1));
  EXPECT_EQ(done, 5);
  loop.run_for(seconds(1));
  EXPECT_EQ(done, 15);
  loop.run_for(seconds(1));
  EXPECT_EQ(done, 25);
  EXPECT_EQ(slow.metrics().throttled, 20u);
}

TEST_F(ClientFaults, a_list_whose_pages_expire_starts_again_once) {
  for (int i = 0; i < 5; ++i) create_pod("p" + std::to_string(i));
  int page = 0;
  transport.set_faults(
      [&](const kube::Request& request) {
        RequestFault fault;
        if (request.verb == Verb::kList && ++page == 2) fault.answer = local::gone();
        return fault;
      },
      {});
  std::optional<size_t> count;
  client.list<Pod>({.ns = "ns", .page_size = 2}, [&](const Result<kube::List<Pod>>& list) {
    ASSERT_TRUE(list) << list.error().message;
    count = list->items.size();
  });
  loop.run_for(seconds(10));
  EXPECT_EQ(count, 5u);
}

TEST_F(ClientFaults, an_answer_that_is_no_json_is_data_loss) {
  kube::Response html{.status = 200, .body = Payload::text("<html>login</html>")};
  fail(Verb::kGet, 1, {.answer = html});
  EXPECT_EQ(get(client, "p").error().code, Code::kDataLoss);
}

}  // namespace
}  // namespace pitcrew::contract
