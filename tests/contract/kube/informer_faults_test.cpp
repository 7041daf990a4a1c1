#include "lib/base/random.hpp"
#include "lib/kube/cache/informer.hpp"
#include "tests/contract/kube/memory_world.hpp"

namespace pitcrew::contract {
namespace {

using kube::Informer;
using kube::Pod;
using kube::Verb;
using local::RequestFault;
using local::WatchFault;

class InformerFaults : public MemoryWorld {
 protected:
  void start() {
    informer.add_handler(
        {[this](const auto& now, bool initial) { tell((initial ? "initial " : "add ") + now->metadata.name); },
         [this](const auto&, const auto& now) { tell("update " + now->metadata.name); },
         [this](const auto& last, bool unseen) { tell((unseen ? "vanished " : "delete ") + last->metadata.name); }});
    informer.start();
    loop.run_for(seconds(5));
  }
  void tell(std::string what) { told.push_back(std::move(what)); }
  std::vector<std::string> news() { return std::exchange(told, {}); }
  void on_events(std::function<WatchFault(int)> faults) {
    transport.set_faults({},
                         [count = 0, faults = std::move(faults)](const auto&, const kube::WatchEvent& event) mutable {
                           return event.type == kube::WatchEventType::kBookmark ? WatchFault{} : faults(++count);
                         });
  }
  // Whether the cache and the server have the same objects in the same versions.
  testing::AssertionResult up_to_date() {
    if (informer.store().size() != server.count(Pod::type())) {
      return testing::AssertionFailure() << informer.store().size() << " cached, " << server.count(Pod::type())
                                         << " there";
    }
    testing::AssertionResult result = testing::AssertionSuccess();
    server.for_each(Pod::type(), [&](const kube::Payload& payload) {
      const auto there = *payload.as<Pod>();
      const auto cached = informer.store().get(there->metadata.key());
      if (!cached || cached->metadata.resource_version != there->metadata.resource_version) {
        result = testing::AssertionFailure() << there->metadata.name << " is stale";
      }
    });
    return result;
  }

  Informer<Pod> informer{loop, transport, 7};
  std::vector<std::string> told;
};

TEST_F(InformerFaults, bug_20_is_not_synced_before_the_first_list_is_there) {
  fail(Verb::kList, 3, {.before = Error(Code::kUnavailable, "refused")});
  create_pod("p");
  informer.start();
  loop.run_for(milliseconds(100));
  EXPECT_FALSE(informer.synced());
  loop.run_for(seconds(30));
  EXPECT_TRUE(informer.synced());
  EXPECT_TRUE(up_to_date());
}

TEST_F(InformerFaults, bug_01_survives_a_compaction_while_it_was_away) {
  start();
  create_pod("a");
  loop.run_for(seconds(1));
  transport.set_connected(false);
  create_pod("b");
  delete_pod("a");
  server.compact();
  loop.run_for(seconds(1));
  transport.set_connected(true);
  loop.run_for(minutes(5));
  EXPECT_TRUE(up_to_date());
  EXPECT_EQ(news(), (std::vector<std::string>{"add a", "vanished a", "add b"}));
  EXPECT_GE(informer.metrics().expired, 1u);
}

TEST_F(InformerFaults, bug_02_survives_410_in_the_stream) {
  start();
  on_events([](int event) { return WatchFault{.gone = event == 1}; });
  create_pod("a");
  create_pod("b");
  loop.run_for(minutes(1));
  EXPECT_TRUE(up_to_date());
  EXPECT_EQ(news(), (std::vector<std::string>{"add a", "add b"}));
}

TEST_F(InformerFaults, bug_03_a_half_open_watch_is_noticed) {
  start();
  transport.set_connected(false);
  create_pod("a");
  loop.run_for(milliseconds(1));
  transport.set_connected(true);  // the old stream stays silent for ever
  loop.run_for(minutes(3));
  EXPECT_TRUE(up_to_date());
}

TEST_F(InformerFaults, bug_04_what_was_deleted_while_it_was_away_is_told) {
  create_pod("a");
  create_pod("b");
  start();
  EXPECT_EQ(news(), (std::vector<std::string>{"initial a", "initial b"}));
  transport.set_connected(false);
  delete_pod("a");
  server.compact();
  transport.set_connected(true);
  transport.break_watches();
  loop.run_for(minutes(3));
  EXPECT_EQ(news(), std::vector<std::string>{"vanished a"});
}

TEST_F(InformerFaults, bug_10_a_new_uid_under_an_old_name_is_a_delete_and_an_add) {
  create_pod("a");
  start();
  news();
  transport.set_connected(false);
  delete_pod("a");
  create_pod("a");
  server.compact();
  transport.set_connected(true);
  loop.run_for(minutes(3));
  EXPECT_EQ(news(), (std::vector<std::string>{"vanished a", "add a"}));
}

TEST_F(InformerFaults, events_that_are_told_again_change_nothing) {
  start();
  on_events([](int) { return WatchFault{.repeat = true}; });
  create_pod("a");
  label_pod("a", "x");
  delete_pod("a");
  loop.run_for(seconds(1));
  EXPECT_EQ(news(), (std::vector<std::string>{"add a", "update a", "delete a"}));
}

TEST_F(InformerFaults, a_cut_watch_goes_on_where_it_was_without_a_list) {
  start();
  on_events([](int event) { return WatchFault{.cut = event == 2}; });
  create_pod("a");
  create_pod("b");
  create_pod("c");
  loop.run_for(seconds(10));
  EXPECT_EQ(news(), (std::vector<std::string>{"add a", "add b", "add c"}));
  EXPECT_EQ(informer.metrics().lists, 1u);
}

TEST_F(InformerFaults, a_late_event_does_not_overtake_or_get_overtaken) {
  start();
  on_events([](int event) { return WatchFault{.delay = event == 1 ? seconds(5) : Duration(0)}; });
  create_pod("a");
  create_pod("b");
  loop.run_for(seconds(4));
  EXPECT_TRUE(news().empty());
  loop.run_for(seconds(2));
  EXPECT_EQ(news(), (std::vector<std::string>{"add a", "add b"}));
}

TEST_F(InformerFaults, a_server_that_refuses_is_not_hammered) {
  start();
  transport.set_faults(
      [](const kube::Request&) { return RequestFault{.before = Error(Code::kUnavailable, "refused")}; }, {});
  transport.break_watches();
  const uint64_t before = transport.requests();
  loop.run_for(minutes(10));
  EXPECT_LT(transport.requests() - before, 60u);
}

TEST_F(InformerFaults, a_quiet_day_costs_few_requests_and_no_lists) {
  create_pod("a");
  start();
  const uint64_t before = transport.requests();
  loop.run_for(hours(1));
  EXPECT_LE(transport.requests() - before, 12u);
  EXPECT_EQ(informer.metrics().lists, 1u);
}

// Random writes under random faults: whatever happened, the cache becomes what the server has, and the handlers' story
// adds up.
TEST_F(InformerFaults, bug_12_a_daemon_is_sent_its_own_nodes_pods_alone) {
  for (const char* node : {"n1", "n2", "n3"}) {
    Json bound = pod(std::string("on-") + node);
    bound["spec"]["nodeName"] = node;
    direct(Verb::kCreate, "", bound);
  }
  int unselected = 0;
  int objects = 0;
  transport.set_faults(
      [&](const kube::Request& request) {
        if (request.parameter("fieldSelector") != "spec.nodeName=n2") ++unselected;
        return RequestFault{};
      },
      [&](const kube::Request&, const kube::WatchEvent& event) {
        if (event.type != kube::WatchEventType::kBookmark) ++objects;
        return WatchFault{};
      });
  Informer<Pod> mine(loop, transport, 8, {.field_selector = "spec.nodeName=n2"});
  mine.start();
  loop.run_for(seconds(5));
  for (int i = 0; i < 10; ++i) label_pod("on-n1", std::to_string(i));
  label_pod("on-n2", "x");
  loop.run_for(minutes(30));
  EXPECT_EQ(mine.store().size(), 1u);
  EXPECT_EQ(objects, 1);
  EXPECT_EQ(unselected, 0);
}

TEST_F(InformerFaults, becomes_what_the_server_has_under_random_faults) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    VirtualLoop own_loop;
    local::ApiServer own_server(own_loop, {.seed = seed, .history = 20});
    local::MemoryTransport own_transport(own_loop, own_server);
    Random random(seed);
    bool faults = true;
    own_transport.set_faults(
        [&](const kube::Request&) {
          RequestFault fault;
          if (!faults) return fault;
          fault.request_delay = milliseconds(random.below(50));
          if (random.chance(0.2)) fault.before = Error(Code::kUnavailable, "refused");
          if (random.chance(0.1)) fault.answer = local::gone();
          if (random.chance(0.1)) fault.answer = local::too_many_requests(seconds(1));
          return fault;
        },
        [&](const kube::Request&, const kube::WatchEvent&) {
          WatchFault fault;
          if (!faults) return fault;
          fault.delay = milliseconds(random.below(200));
          fault.repeat = random.chance(0.1);
          fault.cut = random.chance(0.05);
          fault.gone = random.chance(0.03);
          return fault;
        });
    Informer<Pod> cache(own_loop, own_transport, seed);
    std::map<std::string, std::string> story;  // name → UID, as the handlers told it
    cache.add_handler(
        {[&](const auto& now, bool) { EXPECT_TRUE(story.emplace(now->metadata.name, now->metadata.uid).second); },
         [&](const auto& old, const auto& now) { EXPECT_EQ(old->metadata.uid, now->metadata.uid); },
         [&](const auto& last, bool) { EXPECT_EQ(story.erase(last->metadata.name), 1u); }});
    cache.start();
    const auto write = [&](Verb verb, const std::string& name, Json body) {
      kube::Request request{.verb = verb, .type = Pod::type(), .key = {"ns", verb == Verb::kCreate ? "" : name}};
      if (!body.is_null()) request.body = kube::Payload::of(std::move(body));
      (void)own_server.handle(request);
    };
    for (int i = 0; i < 400; ++i) {
      const std::string name = "p" + std::to_string(random.below(10));
      switch (random.below(4)) {
        case 0:
          write(Verb::kCreate, name, pod(name));
          break;
        case 1:
          write(Verb::kDelete, name, nullptr);
          break;
        case 2:
          write(Verb::kPatch, name, {{"metadata", {{"labels", {{"n", std::to_string(i)}}}}}});
          break;
        default:
          break;
      }
      if (random.chance(0.02)) own_server.compact();
      if (random.chance(0.02)) own_transport.set_connected(!own_transport.connected());
      if (random.chance(0.02)) own_transport.break_watches();
      own_loop.run_for(milliseconds(random.below(3000)));
    }
    faults = false;
    own_transport.set_connected(true);
    own_loop.run_for(minutes(5));
    EXPECT_EQ(cache.store().size(), own_server.count(Pod::type()));
    own_server.for_each(Pod::type(), [&](const kube::Payload& payload) {
      const auto there = *payload.as<Pod>();
      const auto cached = cache.store().get(there->metadata.key());
      ASSERT_TRUE(cached);
      EXPECT_EQ(*cached, *there);
      EXPECT_EQ(story[there->metadata.name], there->metadata.uid);
    });
    EXPECT_EQ(story.size(), cache.store().size());
  }
}

}  // namespace
}  // namespace pitcrew::contract
