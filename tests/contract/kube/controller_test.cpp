#include "lib/kube/runtime/controller.hpp"

#include "lib/kube/cache/informer.hpp"
#include "lib/kube/runtime/expectations.hpp"
#include "tests/contract/kube/memory_world.hpp"

namespace pitcrew::contract {
namespace {

using kube::Controller;
using kube::Reconciled;

class ControllerTest : public MemoryWorld {
 protected:
  static ObjectKey key(const std::string& name) { return {"ns", name}; }
};

TEST_F(ControllerTest, bug_20_no_work_begins_before_the_caches_have_synced) {
  bool synced = false;
  int runs = 0;
  Controller controller(loop, {}, [&](const ObjectKey&, const Controller::Done& done) {
    ++runs;
    done(Reconciled::done());
  });
  controller.wait_for([&] { return synced; });
  controller.start();
  controller.enqueue(key("a"));
  loop.run_for(seconds(5));
  EXPECT_EQ(runs, 0);
  synced = true;
  loop.run_for(seconds(1));
  EXPECT_EQ(runs, 1);
}

TEST_F(ControllerTest, so_many_keys_are_worked_on_at_once_and_none_twice) {
  std::vector<Controller::Done> open;
  Controller controller(loop, {.workers = 3},
                        [&](const ObjectKey&, Controller::Done done) { open.push_back(std::move(done)); });
  controller.start();
  for (const char* name : {"a", "b", "c", "d", "a"}) controller.enqueue(key(name));
  loop.run_for(seconds(1));
  EXPECT_EQ(open.size(), 3u);
  controller.enqueue(key("a"));
  loop.run_for(seconds(1));
  EXPECT_EQ(open.size(), 3u);
  open[0](Reconciled::done());
  loop.run_for(seconds(1));
  EXPECT_EQ(open.size(), 4u);
}

TEST_F(ControllerTest, failures_back_off_and_success_forgets_them) {
  std::vector<Instant> runs;
  Controller controller(loop, {}, [&](const ObjectKey&, const Controller::Done& done) {
    runs.push_back(loop.now());
    done(runs.size() < 4 ? Reconciled::failed(Error(Code::kUnavailable, "later")) : Reconciled::done());
  });
  controller.start();
  controller.enqueue(key("a"));
  loop.run_for(minutes(1));
  ASSERT_EQ(runs.size(), 4u);
  EXPECT_EQ(runs[1] - runs[0], milliseconds(5));
  EXPECT_EQ(runs[3] - runs[2], milliseconds(20));
  EXPECT_EQ(controller.queue().failures(key("a")), 0);
  EXPECT_EQ(controller.metrics().failed, 3u);
}

TEST_F(ControllerTest, a_terminal_error_is_not_tried_again_and_again_after_is) {
  int runs = 0;
  Controller controller(loop, {}, [&](const ObjectKey& which, const Controller::Done& done) {
    ++runs;
    done(which.name == "bad" ? Reconciled::terminal(Error(Code::kInvalidArgument, "never"))
                             : Reconciled::again_after(minutes(10)));
  });
  controller.start();
  controller.enqueue(key("bad"));
  loop.run_for(hours(1));
  EXPECT_EQ(runs, 1);
  controller.enqueue(key("good"));
  loop.run_for(hours(1) + seconds(1));
  EXPECT_EQ(runs, 1 + 7);
}

TEST_F(ControllerTest, stopping_waits_for_what_runs) {
  std::optional<Controller::Done> open;
  Controller controller(loop, {}, [&](const ObjectKey&, Controller::Done done) { open = std::move(done); });
  controller.start();
  controller.enqueue(key("a"));
  loop.run_for(seconds(1));
  bool drained = false;
  controller.stop([&] { drained = true; });
  loop.run_for(seconds(1));
  EXPECT_FALSE(drained);
  (*open)(Reconciled::again_after(seconds(1)));
  loop.run_for(seconds(1));
  EXPECT_TRUE(drained);
}

TEST_F(ControllerTest, one_that_never_started_stops_at_once) {
  Controller controller(loop, {}, [](const ObjectKey&, const Controller::Done& done) { done(Reconciled::done()); });
  bool drained = false;
  controller.stop([&] { drained = true; });
  loop.run_for(seconds(1));
  EXPECT_TRUE(drained);
}

TEST_F(ControllerTest, an_answer_after_its_end_is_ignored) {
  std::optional<Controller::Done> open;
  {
    Controller controller(loop, {}, [&](const ObjectKey&, Controller::Done done) { open = std::move(done); });
    controller.start();
    controller.enqueue(key("a"));
    loop.run_for(seconds(1));
  }
  (*open)(Reconciled::done());
  loop.run_for(seconds(1));
}

// A reconciler that keeps three pods per key, by deterministic names, on a watch that is late and a server that loses
// answers.
TEST_F(ControllerTest, bug_05_a_stale_cache_makes_no_second_pod_and_a_quiet_world_makes_no_writes) {
  Random random(11);
  bool faults = true;
  transport.set_faults(
      [&](const kube::Request& request) {
        local::RequestFault fault;
        if (faults && request.verb == kube::Verb::kCreate && random.chance(0.3)) {
          fault.lost_reply = Error(Code::kUnavailable, "connection reset");
        }
        return fault;
      },
      [&](const kube::Request&, const kube::WatchEvent&) { return local::WatchFault{.delay = seconds(2)}; });
  kube::Client client(loop, transport, 1);
  kube::Informer<kube::Pod> pods(loop, transport, 2);
  kube::Expectations expectations(loop);
  Controller controller(loop, {}, [&](const ObjectKey& which, const Controller::Done& done) {
    if (expectations.state(which) == kube::Expectations::State::kPending) return done(Reconciled::done());
    for (int i = 0; i < 3; ++i) {
      const std::string name = which.name + "-" + std::to_string(i);
      if (pods.store().get({"ns", name})) continue;
      expectations.expect(which, name);
      return client.create_raw(
          kube::Pod::type(), pod(name), [&, which, name, done](const Result<kube::Payload>& created) {
            if (created) return done(Reconciled::again_after(Duration(0)));
            expectations.observed(which, name);  // unknown: the next run repeats the create under the same name
            if (created.error().code == Code::kAlreadyExists) return done(Reconciled::again_after(seconds(3)));
            done(Reconciled::failed(created.error()));
          });
    }
    done(Reconciled::done());
  });
  pods.add_handler({[&](const auto& now, bool) {
    const ObjectKey owner = key(now->metadata.name.substr(0, now->metadata.name.rfind('-')));
    expectations.observed(owner, now->metadata.name);
    controller.enqueue(owner);
  }});
  controller.wait_for([&] { return pods.synced(); });
  pods.start();
  controller.start();
  for (int i = 0; i < 10; ++i) controller.enqueue(key("job" + std::to_string(i)), kube::priority::kInitial);
  loop.run_for(minutes(2));
  EXPECT_EQ(server.count(kube::Pod::type()), 30u);

  faults = false;
  const uint64_t writes = server.writes();
  const uint64_t requests = client.metrics().requests;
  for (int i = 0; i < 10; ++i) controller.enqueue(key("job" + std::to_string(i)));
  loop.run_for(hours(1));
  EXPECT_EQ(server.writes(), writes);
  EXPECT_EQ(client.metrics().requests, requests);
}

// Its own status writes come back as events; what they say is the same, so nothing follows from them.
TEST_F(ControllerTest, bug_06_a_status_write_does_not_lead_to_the_next) {
  kube::Client client(loop, transport, 1);
  kube::Informer<kube::Pod> pods(loop, transport, 2);
  int runs = 0;
  Controller controller(loop, {}, [&](const ObjectKey& which, const Controller::Done& done) {
    ++runs;
    const auto pod = pods.store().get(which);
    if (!pod) return done(Reconciled::done());
    const Json wanted = {{"phase", "Running"}, {"message", "seen"}};
    const Json stored = **server.find(kube::Pod::type(), which).json();
    if (stored["status"].value("message", "") == "seen") return done(Reconciled::done());
    client.patch_raw(kube::Pod::type(), which, {kube::PatchKind::kMerge, {{"status", wanted}}, {}, "status"},
                     [done](const Result<kube::Payload>& patched) {
                       done(patched ? Reconciled::done() : Reconciled::failed(patched.error()));
                     });
  });
  pods.add_handler({[&](const auto& now, bool) { controller.enqueue(now->metadata.key()); },
                    [&](const auto&, const auto& now) { controller.enqueue(now->metadata.key()); }});
  controller.wait_for([&] { return pods.synced(); });
  pods.start();
  controller.start();
  for (int i = 0; i < 10; ++i) create_pod("p" + std::to_string(i));
  loop.run_for(minutes(1));
  const int settled = runs;
  EXPECT_EQ(server.writes(), 20u);  // a create and a status each
  EXPECT_EQ(settled, 20);           // one for each of them
  loop.run_for(hours(24));
  EXPECT_EQ(server.writes(), 20u);
  EXPECT_EQ(runs, settled);
}

}  // namespace
}  // namespace pitcrew::contract
