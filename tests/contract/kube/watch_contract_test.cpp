#include <algorithm>

#include "lib/kube/cache/informer.hpp"
#include "lib/kube/types/pod.hpp"
#include "tests/contract/kube/cluster.hpp"

namespace pitcrew::contract {
namespace {

using kube::Payload;
using kube::Pod;
using kube::Request;
using kube::Verb;
using kube::WatchEvent;
using kube::WatchEventType;

class WatchContract : public KubeContract {
 protected:
  struct Seen {
    std::vector<std::string> events;  // "ADDED a"
    std::vector<std::string> versions;
    std::optional<Status> end;
    std::string error;
  };

  kube::CallPtr watch(Seen& seen, const std::string& version,
                      std::vector<std::pair<std::string, std::string>> query = {}) {
    Request request{.verb = Verb::kWatch, .type = config_maps(), .key = {ns, ""}, .query = std::move(query)};
    request.query.emplace_back("watch", "1");
    if (!version.empty()) request.query.emplace_back("resourceVersion", version);
    return cluster->transport().watch(request,
                                      {[&seen](WatchEvent event) {
                                         const Json object = **event.object.json();
                                         if (event.type == WatchEventType::kError) {
                                           seen.error = object.value("reason", "");
                                           return;
                                         }
                                         std::string name = object["metadata"].value("name", "");
                                         seen.events.push_back(std::string(to_string(event.type)) + " " + name);
                                         seen.versions.push_back(object["metadata"]["resourceVersion"]);
                                       },
                                       [&seen](Status status) { seen.end = std::move(status); }});
  }

  std::string now() {
    const auto list = wait<kube::Client::RawList>([&](auto done) {
      client.list_raw(config_maps(), {ns, "", "", 0}, done);
    });
    return list ? list->resource_version : list.error().message;
  }
  bool run_until_events(const Seen& seen, size_t count) {
    return cluster->run_until([&] { return seen.events.size() >= count || seen.end; });
  }
};

TEST_P(WatchContract, tells_changes_in_order_from_a_version_on) {
  ASSERT_TRUE(create(config_maps(), config_map("before")));
  const std::string from = now();
  ASSERT_TRUE(create(config_maps(), config_map("a")));
  Seen seen;
  const auto call = watch(seen, from);
  ASSERT_TRUE(run_until_events(seen, 1));
  ASSERT_TRUE(patch(config_maps(), "a", {kube::PatchKind::kMerge, {{"data", {{"x", "1"}}}}}));
  ASSERT_TRUE(remove(config_maps(), "a"));
  ASSERT_TRUE(run_until_events(seen, 3));
  EXPECT_EQ(seen.events, (std::vector<std::string>{"ADDED a", "MODIFIED a", "DELETED a"}));
  for (size_t i = 1; i < seen.versions.size(); ++i) {
    EXPECT_GT(std::stoull(seen.versions[i]), std::stoull(seen.versions[i - 1]));
  }
}

TEST_P(WatchContract, an_object_that_begins_or_ceases_to_match_is_added_or_deleted) {
  ASSERT_TRUE(create(config_maps(), config_map("a", {}, {{"app", "other"}})));
  Seen seen;
  const auto call = watch(seen, now(), {{"labelSelector", "app=x"}});
  const auto label = [&](const char* value) {
    ASSERT_TRUE(patch(config_maps(), "a", {kube::PatchKind::kMerge, {{"metadata", {{"labels", {{"app", value}}}}}}}));
  };
  label("x");
  label("other");
  label("x");
  ASSERT_TRUE(remove(config_maps(), "a"));
  ASSERT_TRUE(run_until_events(seen, 4));
  EXPECT_EQ(seen.events, (std::vector<std::string>{"ADDED a", "DELETED a", "ADDED a", "DELETED a"}));
  EXPECT_GT(std::stoull(seen.versions[1]), std::stoull(seen.versions[0]));
}

TEST_P(WatchContract, one_name_can_be_watched_alone) {
  Seen seen;
  const auto call = watch(seen, now(), {{"fieldSelector", "metadata.name=a"}});
  ASSERT_TRUE(create(config_maps(), config_map("b")));
  ASSERT_TRUE(create(config_maps(), config_map("a")));
  ASSERT_TRUE(run_until_events(seen, 1));
  EXPECT_EQ(seen.events, std::vector<std::string>{"ADDED a"});
}

TEST_P(WatchContract, ends_cleanly_after_the_time_that_was_asked_for) {
  Seen seen;
  const auto call = watch(seen, now(), {{"timeoutSeconds", "1"}});
  ASSERT_TRUE(cluster->run_until([&] { return seen.end.has_value(); }));
  EXPECT_TRUE(seen.end->ok());
}

TEST_P(WatchContract, a_watch_that_is_dropped_says_nothing_more) {
  Seen seen;
  auto call = watch(seen, now());
  ASSERT_TRUE(create(config_maps(), config_map("a")));
  ASSERT_TRUE(run_until_events(seen, 1));
  call.reset();
  ASSERT_TRUE(create(config_maps(), config_map("b")));
  now();
  EXPECT_EQ(seen.events.size(), 1u);
  EXPECT_FALSE(seen.end);
}

TEST_P(WatchContract, an_informer_shows_what_the_server_has) {
  ASSERT_TRUE(create(Pod::type(), pod("first")));
  kube::Informer<Pod> informer(cluster->loop(), cluster->transport(), 7, {.ns = ns});
  std::vector<std::string> told;
  informer.add_handler(
      {[&](const auto& now, bool initial) { told.push_back((initial ? "initial " : "add ") + now->metadata.name); },
       [&](const auto&, const auto& now) { told.push_back("update " + now->metadata.name); },
       [&](const auto& last, bool) { told.push_back("delete " + last->metadata.name); }});
  informer.add_index("label", kube::index_by_label<Pod>("app"));
  informer.start();
  ASSERT_TRUE(cluster->run_until([&] { return informer.synced(); }));
  ASSERT_TRUE(create(Pod::type(), pod("second")));
  ASSERT_TRUE(patch(Pod::type(), "second", {kube::PatchKind::kMerge, {{"metadata", {{"labels", {{"app", "x"}}}}}}}));
  ASSERT_TRUE(cluster->run_until([&] { return informer.store().by_index("label", "x").size() == 1; }));
  ASSERT_TRUE(remove(Pod::type(), "first"));
  ASSERT_TRUE(cluster->run_until([&] { return informer.store().size() == 1; }));
  // A server may show a pod's deletion before its end.
  told.erase(std::remove(told.begin(), told.end(), "update first"), told.end());
  EXPECT_EQ(told, (std::vector<std::string>{"initial first", "add second", "update second", "delete first"}));
}

TEST_P(WatchContract, an_informer_may_be_sent_the_first_objects_as_events) {
  for (const char* name : {"a", "b", "c"}) ASSERT_TRUE(create(Pod::type(), pod(name)));
  kube::Informer<Pod> informer(cluster->loop(), cluster->transport(), 7, {.ns = ns}, {.streaming_list = true});
  informer.start();
  ASSERT_TRUE(cluster->run_until([&] { return informer.synced(); }));
  EXPECT_EQ(informer.store().size(), 3u);
  ASSERT_TRUE(create(Pod::type(), pod("d")));
  ASSERT_TRUE(cluster->run_until([&] { return informer.store().size() == 4; }));
  EXPECT_EQ(informer.metrics().watches, 1u);  // one stream for both
  EXPECT_EQ(informer.metrics().errors, 0u);
}

INSTANTIATE_TEST_SUITE_P(On, WatchContract, testing::ValuesIn(clusters()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace pitcrew::contract
