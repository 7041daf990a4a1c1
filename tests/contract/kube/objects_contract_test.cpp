#include "lib/kube/types/lease.hpp"
#include "lib/kube/types/pod.hpp"
#include "tests/contract/kube/cluster.hpp"

namespace pitcrew::contract {
namespace {

using kube::Lease;
using kube::Patch;
using kube::PatchKind;
using kube::Payload;
using kube::Pod;

Json tree(const Payload& payload) { return **payload.json(); }
Json tree(const Result<Payload>& payload) { return payload ? tree(*payload) : Json(payload.error().message); }
std::string version(const Json& object) { return object["metadata"]["resourceVersion"]; }
std::string uid(const Json& object) { return object["metadata"]["uid"]; }

TEST_P(KubeContract, what_is_created_can_be_read_and_has_an_identity) {
  const auto created = create(config_maps(), config_map("a", {{"x", "1"}}));
  ASSERT_TRUE(created) << created.error().message;
  EXPECT_FALSE(uid(tree(created)).empty());
  EXPECT_FALSE(version(tree(created)).empty());
  EXPECT_TRUE(tree(created)["metadata"].contains("creationTimestamp"));
  EXPECT_EQ(tree(get_raw(config_maps(), "a"))["data"]["x"], "1");
}

TEST_P(KubeContract, what_is_not_there_is_not_found) {
  EXPECT_EQ(get_raw(config_maps(), "none").error().code, Code::kNotFound);
  EXPECT_EQ(update(config_maps(), config_map("none")).error().code, Code::kNotFound);
  EXPECT_EQ(remove(config_maps(), "none").error().code, Code::kNotFound);
  EXPECT_EQ(patch(config_maps(), "none", {PatchKind::kMerge, Json::object()}).error().code, Code::kNotFound);
}

TEST_P(KubeContract, a_repeated_create_says_already_exists_and_changes_nothing) {
  ASSERT_TRUE(create(config_maps(), config_map("a", {{"x", "1"}})));
  EXPECT_EQ(create(config_maps(), config_map("a", {{"x", "2"}})).error().code, Code::kAlreadyExists);
  EXPECT_EQ(tree(get_raw(config_maps(), "a"))["data"]["x"], "1");
}

TEST_P(KubeContract, a_wrong_name_is_refused) {
  EXPECT_EQ(create(config_maps(), config_map("Not_A_Name")).error().code, Code::kInvalidArgument);
}

TEST_P(KubeContract, an_update_of_an_old_version_is_a_conflict) {
  const auto first = create(config_maps(), config_map("a"));
  Json mine = tree(first);
  mine["data"] = {{"x", "1"}};
  ASSERT_TRUE(update(config_maps(), mine));
  mine["data"] = {{"x", "2"}};
  EXPECT_EQ(update(config_maps(), mine).error().code, Code::kConflict);
  mine["metadata"].erase("resourceVersion");
  EXPECT_TRUE(update(config_maps(), mine));
}

TEST_P(KubeContract, versions_grow_and_an_update_that_changes_nothing_makes_none) {
  const Json first = tree(create(config_maps(), config_map("a", {{"x", "1"}})));
  const Json same = tree(update(config_maps(), first));
  EXPECT_EQ(version(same), version(first));
  Json changed = first;
  changed["data"]["x"] = "2";
  const Json second = tree(update(config_maps(), changed));
  EXPECT_GT(std::stoull(version(second)), std::stoull(version(first)));
}

TEST_P(KubeContract, what_the_server_owns_of_the_metadata_cannot_be_changed) {
  const Json first = tree(create(config_maps(), config_map("a")));
  Json mine = first;
  mine["metadata"].erase("uid");
  mine["metadata"]["creationTimestamp"] = "2001-01-01T00:00:00Z";
  mine["metadata"]["labels"] = {{"l", "v"}};
  const Json after = tree(update(config_maps(), mine));
  EXPECT_EQ(uid(after), uid(first));
  EXPECT_EQ(after["metadata"]["creationTimestamp"], first["metadata"]["creationTimestamp"]);
  EXPECT_EQ(after["metadata"]["labels"]["l"], "v");
}

TEST_P(KubeContract, same_name_with_a_new_uid_is_another_object) {
  const Json first = tree(create(config_maps(), config_map("a")));
  ASSERT_TRUE(remove(config_maps(), "a"));
  const Json second = tree(create(config_maps(), config_map("a")));
  EXPECT_NE(uid(first), uid(second));
  Json stale = first;
  stale["metadata"].erase("resourceVersion");
  EXPECT_FALSE(update(config_maps(), stale));
}

TEST_P(KubeContract, a_merge_patch_changes_what_it_names_and_null_removes) {
  ASSERT_TRUE(create(config_maps(), config_map("a", {{"x", "1"}, {"y", "2"}})));
  const auto after = patch(config_maps(), "a", {PatchKind::kMerge, {{"data", {{"x", nullptr}, {"z", "3"}}}}});
  ASSERT_TRUE(after) << after.error().message;
  EXPECT_EQ(tree(after)["data"], Json({{"y", "2"}, {"z", "3"}}));
}

TEST_P(KubeContract, a_strategic_patch_merges_maps) {
  ASSERT_TRUE(create(config_maps(), config_map("a", {{"x", "1"}})));
  EXPECT_EQ(tree(patch(config_maps(), "a", {PatchKind::kStrategic, {{"data", {{"z", "3"}}}}}))["data"],
            Json({{"x", "1"}, {"z", "3"}}));
}

TEST_P(KubeContract, a_json_patch_is_applied_if_its_test_holds) {
  ASSERT_TRUE(create(config_maps(), config_map("a", {{"x", "1"}})));
  const auto operations = [](const char* expected) {
    return Json::array({{{"op", "test"}, {"path", "/data/x"}, {"value", expected}},
                        {{"op", "replace"}, {"path", "/data/x"}, {"value", "2"}}});
  };
  EXPECT_EQ(patch(config_maps(), "a", {PatchKind::kJson, operations("9")}).error().code, Code::kPreconditionFailed);
  EXPECT_EQ(tree(patch(config_maps(), "a", {PatchKind::kJson, operations("1")}))["data"]["x"], "2");
}

TEST_P(KubeContract, a_patch_with_another_uid_or_an_old_version_does_nothing) {
  const Json first = tree(create(config_maps(), config_map("a", {{"x", "1"}})));
  ASSERT_TRUE(patch(config_maps(), "a", {PatchKind::kMerge, {{"data", {{"x", "2"}}}}, {uid(first), version(first)}}));
  const Json wanted = {{"data", {{"x", "3"}}}};
  EXPECT_EQ(patch(config_maps(), "a", {PatchKind::kMerge, wanted, {"", version(first)}}).error().code, Code::kConflict);
  EXPECT_FALSE(patch(config_maps(), "a", {PatchKind::kMerge, wanted, {"00000000-0000-4000-8000-000000000000", ""}}));
  const Json operations = Json::array({{{"op", "replace"}, {"path", "/data/x"}, {"value", "3"}}});
  EXPECT_EQ(patch(config_maps(), "a", {PatchKind::kJson, operations, {uid(first), version(first)}}).error().code,
            Code::kPreconditionFailed);
  EXPECT_EQ(tree(get_raw(config_maps(), "a"))["data"]["x"], "2");
}

TEST_P(KubeContract, an_apply_creates_owns_and_removes_fields_and_conflicts_with_other_managers) {
  const auto apply = [&](Json data, const std::string& manager, bool force = false) {
    return wait<Payload>([&](auto done) {
      client.apply_raw(config_maps(), {{"metadata", {{"name", "a"}, {"namespace", ns}}}, {"data", std::move(data)}},
                       {.manager = manager, .force = force}, done);
    });
  };
  const auto created = apply({{"x", "1"}, {"y", "1"}}, "us");
  ASSERT_TRUE(created) << created.error().message;
  const auto same = apply({{"x", "1"}, {"y", "1"}}, "us");
  EXPECT_EQ(version(tree(same)), version(tree(created)));
  EXPECT_EQ(tree(apply({{"y", "1"}}, "us"))["data"], Json({{"y", "1"}}));
  EXPECT_EQ(apply({{"y", "2"}}, "them").error().code, Code::kConflict);
  EXPECT_EQ(tree(apply({{"y", "2"}}, "them", true))["data"], Json({{"y", "2"}}));
  EXPECT_EQ(tree(apply({{"z", "1"}}, "us"))["data"], Json({{"y", "2"}, {"z", "1"}}));
}

// The finalizer of somebody else must survive a patch that was made for another list.
TEST_P(KubeContract, bug_19_a_finalizer_patch_removes_nobody_elses_finalizer) {
  Json object = config_map("a");
  object["metadata"]["finalizers"] = {"other.dev/keep", "pitcrew.dev/mine"};
  ASSERT_TRUE(create(config_maps(), object));
  const auto removal = [](int index) {
    const std::string path = "/metadata/finalizers/" + std::to_string(index);
    return Patch{PatchKind::kJson, Json::array({{{"op", "test"}, {"path", path}, {"value", "pitcrew.dev/mine"}},
                                                {{"op", "remove"}, {"path", path}}})};
  };
  EXPECT_EQ(patch(config_maps(), "a", removal(0)).error().code, Code::kPreconditionFailed);
  const auto after = patch(config_maps(), "a", removal(1));
  ASSERT_TRUE(after) << after.error().message;
  EXPECT_EQ(tree(after)["metadata"]["finalizers"], Json::array({"other.dev/keep"}));
  patch(config_maps(), "a", {PatchKind::kMerge, {{"metadata", {{"finalizers", nullptr}}}}}).ok();
}

TEST_P(KubeContract, an_object_with_finalizers_is_gone_when_the_last_is_removed) {
  Json object = config_map("a");
  object["metadata"]["finalizers"] = {"pitcrew.dev/mine"};
  ASSERT_TRUE(create(config_maps(), object));
  ASSERT_TRUE(remove(config_maps(), "a"));
  const Json deleting = tree(get_raw(config_maps(), "a"));
  ASSERT_TRUE(deleting["metadata"].contains("deletionTimestamp"));
  Json more = deleting;
  more["metadata"]["finalizers"] = {"pitcrew.dev/mine", "pitcrew.dev/late"};
  EXPECT_EQ(update(config_maps(), more).error().code, Code::kInvalidArgument);
  ASSERT_TRUE(patch(config_maps(), "a", {PatchKind::kMerge, {{"metadata", {{"finalizers", nullptr}}}}}));
  EXPECT_EQ(get_raw(config_maps(), "a").error().code, Code::kNotFound);
}

TEST_P(KubeContract, a_delete_checks_its_preconditions) {
  const Json first = tree(create(config_maps(), config_map("a")));
  EXPECT_EQ(remove(config_maps(), "a", {{"00000000-0000-4000-8000-000000000000", ""}, {}}).error().code,
            Code::kPreconditionFailed);
  Json changed = first;
  changed["data"] = {{"x", "1"}};
  ASSERT_TRUE(update(config_maps(), changed));
  EXPECT_FALSE(remove(config_maps(), "a", {{uid(first), version(first)}, {}}));
  EXPECT_TRUE(remove(config_maps(), "a", {{uid(first), ""}, {}}));
}

TEST_P(KubeContract, status_and_spec_are_written_apart) {
  const Json created = tree(create(Pod::type(), pod("p")));
  EXPECT_EQ(created["status"]["phase"], "Pending");
  Json mine = created;
  mine["status"]["phase"] = "Running";
  mine["metadata"]["labels"] = {{"l", "v"}};
  const Json spec_written = tree(update(Pod::type(), mine));
  EXPECT_EQ(spec_written["status"]["phase"], "Pending");
  EXPECT_EQ(spec_written["metadata"]["labels"]["l"], "v");
  mine = spec_written;
  mine["status"]["phase"] = "Running";
  mine["metadata"]["labels"] = {{"l", "other"}};
  const Json status_written = tree(update(Pod::type(), mine, "status"));
  EXPECT_EQ(status_written["status"]["phase"], "Running");
  EXPECT_EQ(status_written["spec"], spec_written["spec"]);
}

TEST_P(KubeContract, the_containers_of_a_pod_cannot_be_changed) {
  Json mine = tree(create(Pod::type(), pod("p")));
  mine["spec"]["containers"][0]["name"] = "other";
  EXPECT_EQ(update(Pod::type(), mine).error().code, Code::kInvalidArgument);
}

TEST_P(KubeContract, a_bound_pod_is_terminating_until_its_kubelet_says_that_it_is_gone) {
  const Json created = tree(create(Pod::type(), pod("p")));
  const auto bind = [&](const std::string& node) {
    auto answer = std::make_shared<std::optional<Status>>();
    client.bind({ns, "p"}, uid(created), node, [answer](Status status) { answer->emplace(std::move(status)); });
    cluster->run_until([&] { return answer->has_value(); });
    return answer->value_or(Error(Code::kInternal, "no answer"));
  };
  ASSERT_TRUE(bind("n1"));
  EXPECT_EQ(bind("n2").error().code, Code::kConflict);
  EXPECT_EQ((*get<Pod>("p"))->node_name, "n1");
  ASSERT_TRUE(remove(Pod::type(), "p"));
  EXPECT_TRUE((*get<Pod>("p"))->deleting());
  ASSERT_TRUE(remove(Pod::type(), "p", {{}, 0}));
  EXPECT_EQ(get<Pod>("p").error().code, Code::kNotFound);
}

TEST_P(KubeContract, a_pod_that_nobody_runs_is_deleted_at_once) {
  ASSERT_TRUE(create(Pod::type(), pod("p")));
  ASSERT_TRUE(remove(Pod::type(), "p"));
  EXPECT_EQ(get<Pod>("p").error().code, Code::kNotFound);
}

TEST_P(KubeContract, lists_follow_label_and_field_selectors) {
  ASSERT_TRUE(create(config_maps(), config_map("a", {}, {{"app", "x"}, {"tier", "1"}})));
  ASSERT_TRUE(create(config_maps(), config_map("b", {}, {{"app", "y"}})));
  ASSERT_TRUE(create(config_maps(), config_map("c", {}, {{"app", "x"}})));
  const auto names = [&](const std::string& labels, const std::string& fields) {
    const auto list = wait<kube::Client::RawList>([&](auto done) {
      client.list_raw(config_maps(), {ns, labels, fields, 500}, done);
    });
    std::string text;
    if (!list) return list.error().message;
    for (const Payload& item : list->items) {
      const std::string name = tree(item)["metadata"]["name"];
      if (name.size() == 1) text += name;
    }
    return text;
  };
  EXPECT_EQ(names("app=x", ""), "ac");
  EXPECT_EQ(names("app!=x,app", ""), "b");
  EXPECT_EQ(names("app in (x,y),!tier", ""), "bc");
  EXPECT_EQ(names("app notin (x),app", ""), "b");
  EXPECT_EQ(names("tier", ""), "a");
  EXPECT_EQ(names("", "metadata.name=b"), "b");
  EXPECT_EQ(names("app=x", "metadata.name!=a"), "c");
}

TEST_P(KubeContract, a_list_in_pages_is_whole_and_of_one_moment) {
  for (char name = 'a'; name < 'h'; ++name)
    ASSERT_TRUE(create(config_maps(), config_map(std::string(1, name), {}, {{"page", "y"}})));
  const auto list = wait<kube::Client::RawList>([&](auto done) {
    client.list_raw(config_maps(), {ns, "page=y", "", 3}, done);
  });
  ASSERT_TRUE(list) << list.error().message;
  EXPECT_EQ(list->items.size(), 7u);
  EXPECT_FALSE(list->resource_version.empty());
}

TEST_P(KubeContract, what_a_dead_owner_owned_is_collected) {
  if (!cluster->collects_garbage()) GTEST_SKIP() << "no controller manager here";
  const Json owner = tree(create(config_maps(), config_map("owner")));
  const Json other = tree(create(config_maps(), config_map("other")));
  const auto reference = [](const Json& of) {
    return Json({{"apiVersion", "v1"}, {"kind", "ConfigMap"}, {"name", of["metadata"]["name"]}, {"uid", uid(of)}});
  };
  Json alone = config_map("alone");
  alone["metadata"]["ownerReferences"] = Json::array({reference(owner)});
  Json shared = config_map("shared");
  shared["metadata"]["ownerReferences"] = Json::array({reference(owner), reference(other)});
  ASSERT_TRUE(create(config_maps(), alone));
  ASSERT_TRUE(create(config_maps(), shared));
  ASSERT_TRUE(remove(config_maps(), "owner"));
  EXPECT_TRUE(cluster->run_until([&] { return !get_raw(config_maps(), "alone"); }));
  const Json kept = tree(get_raw(config_maps(), "shared"));
  EXPECT_EQ(kept["metadata"]["ownerReferences"], Json::array({reference(other)}));

  Json late = config_map("late");
  late["metadata"]["ownerReferences"] = Json::array({reference(owner)});
  ASSERT_TRUE(create(config_maps(), late));
  EXPECT_TRUE(cluster->run_until([&] { return !get_raw(config_maps(), "late"); }));
}

TEST_P(KubeContract, a_lease_is_taken_by_one_of_two_writers) {
  Lease lease;
  lease.metadata = {.name = "leader", .ns = ns};
  lease.holder = "a";
  lease.duration_seconds = 10;
  const auto created = wait<kube::Ptr<Lease>>([&](auto done) { client.create<Lease>(lease, done); });
  ASSERT_TRUE(created) << created.error().message;
  Lease mine = **created;
  mine.holder = "b";
  Lease theirs = **created;
  theirs.holder = "c";
  EXPECT_TRUE(wait<kube::Ptr<Lease>>([&](auto done) { client.update<Lease>(mine, done); }));
  EXPECT_EQ(wait<kube::Ptr<Lease>>([&](auto done) { client.update<Lease>(theirs, done); }).error().code,
            Code::kConflict);
  EXPECT_EQ((*get<Lease>("leader"))->holder, "b");
}

INSTANTIATE_TEST_SUITE_P(On, KubeContract, testing::ValuesIn(clusters()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace pitcrew::contract
