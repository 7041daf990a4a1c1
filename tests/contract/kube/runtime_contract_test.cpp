#include "lib/kube/runtime/event_recorder.hpp"
#include "lib/kube/runtime/leader_elector.hpp"
#include "lib/kube/types/pod.hpp"
#include "tests/contract/kube/cluster.hpp"

namespace pitcrew::contract {
namespace {

using kube::Pod;

// What a person sees with `kubectl events`: one event with a count, whatever happened a hundred times.
TEST_P(KubeContract, bug_18_an_event_that_repeats_becomes_one_series) {
  const auto created = create(Pod::type(), pod("p"));
  ASSERT_TRUE(created) << created.error().message;
  const auto about = *created->as<Pod>();
  kube::EventRecorderSettings settings;
  settings.instance = "operator-0";
  kube::EventRecorder recorder(cluster->loop(), client, 3, settings);
  for (int i = 0; i < 100; ++i) {
    recorder.record(kube::reference_to(*about), "Warning", "NodeLost", "Replacing", "node n1 is silent");
    bool flushed = false;
    recorder.flush(seconds(30), [&] { flushed = true; });
    ASSERT_TRUE(cluster->run_until([&] { return flushed; }));
  }
  EXPECT_EQ(recorder.metrics().dropped, 0u);
  EXPECT_EQ(recorder.metrics().written, 2u);
  const auto list = wait<kube::Client::RawList>([&](auto done) {
    client.list_raw(kube::Event::type(), {ns, "", "", 500}, done);
  });
  ASSERT_TRUE(list) << list.error().message;
  ASSERT_EQ(list->items.size(), 1u);
  const Json event = **list->items.front().json();
  EXPECT_EQ(event["reason"], "NodeLost");
  EXPECT_EQ(event["regarding"]["name"], "p");
  EXPECT_EQ(event["series"]["count"], 2);
}

TEST_P(KubeContract, a_lease_that_is_given_back_is_taken_by_the_next_with_a_higher_term) {
  std::vector<std::string> told;
  const auto elector = [&](const std::string& identity) {
    kube::LeaderElectionSettings settings{.lease = {ns, "leader"}, .identity = identity};
    return std::make_unique<kube::LeaderElector>(
        cluster->loop(), cluster->transport(), 5, settings,
        kube::LeaderElector::Callbacks{
            [&told, identity](Term term) { told.push_back(identity + " leads, term " + std::to_string(term.value)); },
            [&told, identity](const std::string& why) { told.push_back(identity + " lost it: " + why); }});
  };
  const auto first = elector("a");
  const auto second = elector("b");
  first->start();
  ASSERT_TRUE(cluster->run_until([&] { return first->leading(); }));
  second->start();
  ASSERT_TRUE(cluster->run_until([&] { return second->holder() == "a"; }));
  const uint64_t term = first->term().value;
  first->release([] {});
  ASSERT_TRUE(cluster->run_until([&] { return second->leading(); }));
  EXPECT_EQ(told, (std::vector<std::string>{"a leads, term " + std::to_string(term),
                                            "b leads, term " + std::to_string(second->term().value)}));
  EXPECT_GT(second->term().value, term);
}

}  // namespace
}  // namespace pitcrew::contract
