#include "lib/local/api/api_server.hpp"

#include <gtest/gtest.h>

#include "lib/kube/types/event.hpp"
#include "lib/kube/types/node.hpp"
#include "lib/kube/types/pod.hpp"

namespace pitcrew::local {
namespace {

using kube::CallPtr;
using kube::Event;
using kube::Node;
using kube::Payload;
using kube::Pod;
using kube::Request;
using kube::Response;
using kube::Verb;
using kube::WatchEvent;
using kube::WatchEventType;

const ResourceType& jobs() {
  static const ResourceType kType{"pitcrew.dev", "v1alpha1", "TrainingJob", "trainingjobs", true};
  return kType;
}
const ResourceType& config_maps() {
  static const ResourceType kType{"", "v1", "ConfigMap", "configmaps", true};
  return kType;
}

class ApiServerTest : public testing::Test {
 protected:
  ApiServerTest() : ApiServerTest(ApiServerSettings{.history = 8}) {}
  explicit ApiServerTest(ApiServerSettings settings) : server(loop, std::move(settings)) {
    server.register_type(jobs(), {});
  }

  Response ask(Verb verb, const ResourceType& type, const std::string& name, Json body = nullptr,
               std::vector<std::pair<std::string, std::string>> query = {}, const std::string& subresource = "") {
    Request request{.verb = verb,
                    .type = type,
                    .key = {type.namespaced ? "ns" : "", name},
                    .subresource = subresource,
                    .query = std::move(query)};
    if (!body.is_null()) request.body = Payload::of(std::move(body));
    return server.handle(request);
  }
  Json create(const ResourceType& type, const std::string& name, Json more = Json::object()) {
    more["metadata"]["name"] = name;
    return body(ask(Verb::kCreate, type, "", std::move(more)));
  }
  static Json body(const Response& response) { return **response.body.json(); }
  static std::string uid(const Json& object) { return object["metadata"]["uid"]; }

  struct Seen {
    std::vector<std::string> events;
    std::optional<Status> end;
  };
  Result<CallPtr> watch(Seen& seen, const ResourceType& type, const std::string& version,
                        std::vector<std::pair<std::string, std::string>> query = {}) {
    Request request{.verb = Verb::kWatch, .type = type, .query = std::move(query)};
    if (!version.empty()) request.query.emplace_back("resourceVersion", version);
    return server.watch(request, {[&seen](const WatchEvent& event) {
                                    const Json& object = **event.object.json();
                                    const Json* named =
                                        event.type == WatchEventType::kError ? &object["reason"] : nullptr;
                                    if (named == nullptr && object["metadata"].contains("name"))
                                      named = &object["metadata"]["name"];
                                    seen.events.push_back(std::string(to_string(event.type)) +
                                                          (named == nullptr ? "" : " " + named->get<std::string>()));
                                  },
                                  [&seen](Status status) { seen.end = std::move(status); }});
  }

  VirtualLoop loop;
  ApiServer server;
};

TEST_F(ApiServerTest, the_generation_counts_changes_of_the_spec_alone) {
  Json job = create(jobs(), "j", {{"spec", {{"replicas", 2}}}, {"status", {{"phase", "Running"}}}});
  EXPECT_EQ(job["metadata"]["generation"], 1);
  EXPECT_FALSE(job.contains("status"));
  job["metadata"]["labels"] = {{"a", "b"}};
  job = body(ask(Verb::kUpdate, jobs(), "j", job));
  EXPECT_EQ(job["metadata"]["generation"], 1);
  job["status"]["phase"] = "Running";
  job = body(ask(Verb::kUpdate, jobs(), "j", job, {}, "status"));
  EXPECT_EQ(job["metadata"]["generation"], 1);
  EXPECT_EQ(job["status"]["phase"], "Running");
  job["spec"]["replicas"] = 3;
  job = body(ask(Verb::kUpdate, jobs(), "j", job));
  EXPECT_EQ(job["metadata"]["generation"], 2);
}

TEST_F(ApiServerTest, admission_may_refuse_and_may_fill_in) {
  server.set_admission(jobs(), [](const Json* old, Json& object) -> Status {
    if (old != nullptr && (*old)["spec"] != object["spec"]) return Error(Code::kInvalidArgument, "spec: is immutable");
    object["spec"]["filled"] = true;
    return {};
  });
  Json job = create(jobs(), "j", {{"spec", {{"replicas", 2}}}});
  EXPECT_EQ(job["spec"]["filled"], true);
  job["spec"]["replicas"] = 3;
  const Response refused = ask(Verb::kUpdate, jobs(), "j", job);
  EXPECT_EQ(refused.status, 422);
  EXPECT_EQ(body(refused)["message"], "spec: is immutable");
}

TEST_F(ApiServerTest, a_dry_run_changes_nothing) {
  const std::vector<std::pair<std::string, std::string>> dry{{"dryRun", "All"}};
  EXPECT_EQ(ask(Verb::kCreate, jobs(), "", {{"metadata", {{"name", "j"}}}}, dry).status, 201);
  EXPECT_EQ(server.count(jobs()), 0u);
  Json job = create(jobs(), "j", {{"spec", {{"replicas", 2}}}});
  const uint64_t version = server.resource_version();
  job["spec"]["replicas"] = 3;
  EXPECT_EQ(body(ask(Verb::kUpdate, jobs(), "j", job, dry))["spec"]["replicas"], 3);
  EXPECT_EQ(ask(Verb::kDelete, jobs(), "j", nullptr, dry).status, 200);
  EXPECT_EQ(server.resource_version(), version);
}

TEST_F(ApiServerTest, an_update_that_changes_nothing_is_no_write) {
  const Json job = create(jobs(), "j", {{"spec", {{"replicas", 2}}}});
  const uint64_t writes = server.writes();
  EXPECT_EQ(ask(Verb::kUpdate, jobs(), "j", job).status, 200);
  EXPECT_EQ(ask(Verb::kUpdate, jobs(), "j", job, {}, "status").status, 200);
  EXPECT_EQ(server.writes(), writes);
}

TEST_F(ApiServerTest, generated_names_differ) {
  const Json one = body(ask(Verb::kCreate, jobs(), "", {{"metadata", {{"generateName", "j-"}}}}));
  const Json two = body(ask(Verb::kCreate, jobs(), "", {{"metadata", {{"generateName", "j-"}}}}));
  EXPECT_NE(one["metadata"]["name"], two["metadata"]["name"]);
}

TEST_F(ApiServerTest, a_type_nobody_registered_is_not_found) {
  EXPECT_EQ(ask(Verb::kList, {"x.dev", "v1", "Thing", "things", true}, "").status, 404);
}

TEST_F(ApiServerTest, a_page_can_be_asked_for_again_and_expires) {
  for (const char* name : {"a", "b", "c", "d", "e"}) create(jobs(), name);
  const Response first = ask(Verb::kList, jobs(), "", nullptr, {{"limit", "2"}});
  ASSERT_EQ(first.items.size(), 2u);
  const std::string token = body(first)["metadata"]["continue"];
  create(jobs(), "aa");  // not of this list's moment
  for (int i = 0; i < 2; ++i) {
    const Response second = ask(Verb::kList, jobs(), "", nullptr, {{"limit", "2"}, {"continue", token}});
    ASSERT_EQ(second.items.size(), 2u);
    EXPECT_EQ((**second.items[0].json())["metadata"]["name"], "c");
    EXPECT_EQ(body(second)["metadata"]["resourceVersion"], body(first)["metadata"]["resourceVersion"]);
  }
  loop.run_for(minutes(6));
  EXPECT_EQ(ask(Verb::kList, jobs(), "", nullptr, {{"limit", "2"}, {"continue", token}}).status, 410);
}

TEST_F(ApiServerTest, a_watch_from_a_version_beyond_the_history_is_gone) {
  const std::string old = std::to_string(server.resource_version());
  for (int i = 0; i < 9; ++i) create(jobs(), "j" + std::to_string(i));
  Seen seen;
  const auto call = watch(seen, jobs(), old);
  EXPECT_EQ(seen.events, std::vector<std::string>{"ERROR Expired"});
  EXPECT_TRUE(seen.end.has_value());
  Seen recent;
  const auto other = watch(recent, jobs(), std::to_string(server.resource_version() - 2));
  EXPECT_EQ(recent.events, (std::vector<std::string>{"ADDED j7", "ADDED j8"}));
}

TEST_F(ApiServerTest, compaction_expires_old_versions_and_open_watches_go_on) {
  const std::string from = std::to_string(server.resource_version());
  Seen open;
  const auto call = watch(open, jobs(), from);
  create(jobs(), "a");
  server.compact();
  create(jobs(), "b");
  EXPECT_EQ(open.events, (std::vector<std::string>{"ADDED a", "ADDED b"}));
  Seen late;
  const auto other = watch(late, jobs(), from);
  EXPECT_EQ(late.events, std::vector<std::string>{"ERROR Expired"});
}

TEST_F(ApiServerTest, a_version_of_the_future_is_refused) {
  Seen seen;
  EXPECT_EQ(watch(seen, jobs(), "999999").error().code, Code::kDeadlineExceeded);
  EXPECT_EQ(ask(Verb::kList, jobs(), "", nullptr, {{"resourceVersion", "999999"}}).status, 504);
}

TEST_F(ApiServerTest, bookmarks_come_in_quiet_times_with_the_newest_version) {
  Seen seen;
  const auto call = watch(seen, jobs(), std::to_string(server.resource_version()), {{"allowWatchBookmarks", "true"}});
  loop.run_for(minutes(3) + seconds(1));
  EXPECT_EQ(seen.events, (std::vector<std::string>{"BOOKMARK", "BOOKMARK", "BOOKMARK"}));
}

TEST_F(ApiServerTest, initial_events_are_followed_by_a_bookmark_and_the_stream_goes_on) {
  create(jobs(), "a");
  Seen seen;
  const auto call = watch(seen, jobs(), "", {{"sendInitialEvents", "true"}});
  create(jobs(), "b");
  EXPECT_EQ(seen.events, (std::vector<std::string>{"ADDED a", "BOOKMARK", "ADDED b"}));
}

TEST_F(ApiServerTest, a_kubelets_watch_hears_of_its_own_pods_alone) {
  Seen one;
  Seen two;
  const std::string from = std::to_string(server.resource_version());
  const auto first = watch(one, Pod::type(), from, {{"fieldSelector", "spec.nodeName=n1"}});
  const auto second = watch(two, Pod::type(), from, {{"fieldSelector", "spec.nodeName=n2"}});
  create(Pod::type(), "p");
  ask(Verb::kCreate, Pod::type(), "p", {{"target", {{"name", "n1"}}}}, {}, "binding");
  ask(Verb::kDelete, Pod::type(), "p", {{"gracePeriodSeconds", 0}});
  EXPECT_EQ(one.events, (std::vector<std::string>{"ADDED p", "DELETED p"}));
  EXPECT_TRUE(two.events.empty());
}

TEST_F(ApiServerTest, a_pod_is_given_its_own_grace_and_a_shorter_one_wins) {
  create(Pod::type(), "p", {{"spec", {{"terminationGracePeriodSeconds", 60}}}});
  ask(Verb::kCreate, Pod::type(), "p", {{"target", {{"name", "n1"}}}}, {}, "binding");
  const Json first = body(ask(Verb::kDelete, Pod::type(), "p"));
  EXPECT_EQ(first["metadata"]["deletionTimestamp"], to_rfc3339(loop.now() + seconds(60)));
  EXPECT_EQ(body(ask(Verb::kDelete, Pod::type(), "p", {{"gracePeriodSeconds", 90}})), first);
  EXPECT_EQ(body(ask(Verb::kDelete, Pod::type(), "p", {{"gracePeriodSeconds", 5}}))["metadata"]["deletionTimestamp"],
            to_rfc3339(loop.now() + seconds(5)));
  loop.run_for(minutes(10));
  EXPECT_EQ(server.count(Pod::type()), 1u);  // a dead kubelet confirms nothing
}

TEST_F(ApiServerTest, nodes_register_with_their_status) {
  Node node;
  node.metadata.name = "n1";
  node.conditions = {{"Ready", "True", "", "", Instant(seconds(1))}};
  ask(Verb::kCreate, Node::type(), "", node.encode());
  EXPECT_TRUE((*server.find(Node::type(), {"", "n1"}).as<Node>())->ready());
}

TEST_F(ApiServerTest, a_pod_of_a_deleted_job_terminates_and_one_that_was_never_bound_is_gone) {
  const Json job = create(jobs(), "j");
  const Json owners = Json::array(
      {{{"apiVersion", "pitcrew.dev/v1alpha1"}, {"kind", "TrainingJob"}, {"name", "j"}, {"uid", uid(job)}}});
  for (const char* name : {"bound", "waiting"})
    create(Pod::type(), name, {{"metadata", {{"ownerReferences", owners}}}});
  ask(Verb::kCreate, Pod::type(), "bound", {{"target", {{"name", "n1"}}}}, {}, "binding");
  ask(Verb::kDelete, jobs(), "j");
  loop.run_ready();
  EXPECT_TRUE(server.find(Pod::type(), {"ns", "waiting"}).empty());
  EXPECT_TRUE((*server.find(Pod::type(), {"ns", "bound"}).as<Pod>())->deleting());
}

TEST_F(ApiServerTest, observers_see_every_commit_in_order) {
  std::vector<std::string> seen;
  server.add_observer([&](const Change& change) {
    seen.push_back(std::string(to_string(change.type)) + " " + change.key.name + " " +
                   std::to_string(change.resource_version));
  });
  const uint64_t start = server.resource_version();
  Json object = create(config_maps(), "a");
  object["data"] = {{"x", "1"}};
  ask(Verb::kUpdate, config_maps(), "a", object);
  ask(Verb::kDelete, config_maps(), "a");
  EXPECT_EQ(seen,
            (std::vector<std::string>{"ADDED a " + std::to_string(start + 1), "MODIFIED a " + std::to_string(start + 2),
                                      "DELETED a " + std::to_string(start + 3)}));
  EXPECT_EQ(server.writes(config_maps()), 3u);
}

TEST_F(ApiServerTest, a_snapshot_comes_back_with_uids_and_versions_that_grow_on) {
  const Json before = create(jobs(), "j", {{"spec", {{"replicas", 2}}}});
  const Json snapshot = server.snapshot();
  ApiServer restored(loop, {.seed = 2});
  EXPECT_FALSE(restored.restore(snapshot));  // its type isn't registered
  restored.register_type(jobs(), {});
  ASSERT_TRUE(restored.restore(*parse_json(snapshot.dump())));
  EXPECT_EQ(**restored.find(jobs(), {"ns", "j"}).json(), before);
  EXPECT_EQ(restored.resource_version(), server.resource_version());
  EXPECT_FALSE(restored.restore(snapshot));  // not into one with objects
  Request request{
      .verb = Verb::kCreate, .type = jobs(), .key = {"ns", ""}, .body = Payload::of({{"metadata", {{"name", "k"}}}})};
  EXPECT_GT(std::stoull(body(restored.handle(request))["metadata"]["resourceVersion"].get<std::string>()),
            server.resource_version());
  EXPECT_EQ(restored.restore(Json::object()).ok(), false);
}

TEST_F(ApiServerTest, an_event_lives_an_hour_after_its_last_write_and_watches_see_it_go) {
  Seen seen;
  const auto call = watch(seen, Event::type(), std::to_string(server.resource_version()), {{"timeoutSeconds", "7200"}});
  create(Event::type(), "once");
  create(Event::type(), "series");
  create(config_maps(), "stays");
  loop.run_for(minutes(40));
  ask(Verb::kPatch, Event::type(), "series", {{"series", {{"count", 2}}}});
  const uint64_t writes = server.writes();
  const uint64_t version = server.resource_version();
  loop.run_for(minutes(20) - seconds(1));
  EXPECT_EQ(server.count(Event::type()), 2u);
  loop.run_for(seconds(1));
  EXPECT_EQ(seen.events, (std::vector<std::string>{"ADDED once", "ADDED series", "MODIFIED series", "DELETED once"}));
  EXPECT_EQ(server.resource_version(), version + 1);
  loop.run_for(minutes(40));
  EXPECT_EQ(seen.events.back(), "DELETED series");
  EXPECT_EQ(server.count(Event::type()), 0u);
  EXPECT_EQ(server.count(config_maps()), 1u);
  EXPECT_EQ(server.writes(), writes);  // nobody wrote
}

TEST_F(ApiServerTest, an_event_of_the_same_name_has_an_hour_of_its_own) {
  create(Event::type(), "e");
  loop.run_for(minutes(30));
  ask(Verb::kDelete, Event::type(), "e");
  create(Event::type(), "e");
  loop.run_for(minutes(59));
  EXPECT_EQ(server.count(Event::type()), 1u);
  loop.run_for(minutes(1));
  EXPECT_EQ(server.count(Event::type()), 0u);
}

TEST_F(ApiServerTest, restored_events_have_an_hour_from_then_on) {
  create(Event::type(), "e");
  ApiServer restored(loop);
  ASSERT_TRUE(restored.restore(server.snapshot()));
  EXPECT_EQ(restored.count(Event::type()), 1u);
  loop.run_for(hours(1));
  EXPECT_EQ(restored.count(Event::type()), 0u);
}

TEST_F(ApiServerTest, a_token_is_known_for_its_pod_its_audience_and_its_time) {
  const ResourceType reviews{"authentication.k8s.io", "v1", "TokenReview", "tokenreviews", false};
  const auto review = [&](const std::string& token, const std::string& audience) {
    return body(ask(Verb::kCreate, reviews, "", {{"spec", {{"token", token}, {"audiences", {audience}}}}}))["status"];
  };
  const Json pod = create(Pod::type(), "p");
  const std::string token = server.issue_token("pitcrew", {"ns", "p"}, uid(pod), minutes(10));
  const Json known = review(token, "pitcrew");
  EXPECT_EQ(known["authenticated"], true);
  EXPECT_EQ(known["user"]["username"], "system:serviceaccount:ns:default");
  EXPECT_EQ(known["user"]["extra"]["authentication.kubernetes.io/pod-uid"][0], uid(pod));
  EXPECT_EQ(review(token, "other")["authenticated"], false);
  EXPECT_EQ(review(token + "x", "pitcrew")["authenticated"], false);
  ask(Verb::kDelete, Pod::type(), "p");
  create(Pod::type(), "p");  // another pod of the same name
  EXPECT_EQ(review(token, "pitcrew")["authenticated"], false);
  const std::string later = server.issue_token(
      "pitcrew", {"ns", "p"}, (*server.find(Pod::type(), {"ns", "p"}).as<Pod>())->metadata.uid, minutes(10));
  loop.run_for(minutes(10));
  EXPECT_EQ(review(later, "pitcrew")["authenticated"], false);
}

TEST_F(ApiServerTest, the_same_seed_gives_the_same_uids) {
  ApiServer one(loop, {.seed = 5});
  ApiServer two(loop, {.seed = 5});
  const Request request{.verb = Verb::kCreate,
                        .type = config_maps(),
                        .key = {"ns", ""},
                        .body = Payload::of({{"metadata", {{"name", "k"}}}})};
  EXPECT_EQ(body(one.handle(request)), body(two.handle(request)));
}

TEST_F(ApiServerTest, bodies_that_make_no_sense_are_refused) {
  EXPECT_EQ(ask(Verb::kCreate, jobs(), "").status, 400);
  EXPECT_EQ(ask(Verb::kCreate, jobs(), "", Json::array()).status, 400);
  EXPECT_EQ(ask(Verb::kCreate, jobs(), "", {{"metadata", 1}}).status, 400);
  EXPECT_EQ(ask(Verb::kCreate, jobs(), "", {{"metadata", {{"name", "j"}, {"namespace", "other"}}}}).status, 400);
  EXPECT_EQ(ask(Verb::kCreate, jobs(), "", {{"metadata", {{"name", "j"}, {"resourceVersion", "1"}}}}).status, 400);
  create(jobs(), "j");
  EXPECT_EQ(ask(Verb::kUpdate, jobs(), "j", {{"metadata", {{"name", "k"}}}}).status, 400);
  EXPECT_EQ(ask(Verb::kUpdate, jobs(), "j", Json::object()).status, 400);
  EXPECT_EQ(ask(Verb::kPatch, jobs(), "j", {{"metadata", nullptr}}).status, 422);
  EXPECT_EQ(ask(Verb::kList, jobs(), "", nullptr, {{"fieldSelector", "spec.made.up=1"}}).status, 400);
  EXPECT_EQ(ask(Verb::kList, jobs(), "", nullptr, {{"labelSelector", "a b"}}).status, 400);
  EXPECT_EQ(ask(Verb::kDelete, jobs(), "j", {{"propagationPolicy", "Foreground"}}).status, 422);
}

}  // namespace
}  // namespace pitcrew::local
