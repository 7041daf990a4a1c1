#include "lib/kube/transport/transport.hpp"

#include <gtest/gtest.h>

#include "lib/kube/types/pod.hpp"

namespace pitcrew::kube {
namespace {

Request request(Verb verb, ObjectKey key = {}) { return {.verb = verb, .type = Pod::type(), .key = std::move(key)}; }

Response status(int code, const char* reason, const char* message) {
  return {code, Payload::of({{"kind", "Status"}, {"code", code}, {"reason", reason}, {"message", message}})};
}

TEST(Target, names_the_core_group_other_groups_subresources_and_escapes_queries) {
  Request list = request(Verb::kList, {"team a", ""});
  list.query = {{"labelSelector", "a=b,c in (d)"}, {"limit", "5"}};
  EXPECT_EQ(target(list), "/api/v1/namespaces/team%20a/pods?labelSelector=a%3Db%2Cc%20in%20%28d%29&limit=5");
  Request update{.verb = Verb::kUpdate,
                 .type = {"pitcrew.dev", "v1alpha1", "TrainingJob", "trainingjobs", true},
                 .key = {"ns", "j"},
                 .subresource = "status"};
  EXPECT_EQ(target(update), "/apis/pitcrew.dev/v1alpha1/namespaces/ns/trainingjobs/j/status");
  EXPECT_EQ(method(update), "PUT");
  EXPECT_EQ(describe(update), "update trainingjobs/status ns/j");
}

TEST(ErrorOf, conflict_and_already_exists_share_a_number_and_not_a_code) {
  const Request create = request(Verb::kCreate, {"ns", "p"});
  EXPECT_EQ(error_of(create, status(409, "AlreadyExists", "x"))->code, Code::kAlreadyExists);
  EXPECT_EQ(error_of(create, status(409, "Conflict", "x"))->code, Code::kConflict);
  EXPECT_EQ(
      error_of(create, status(409, "Conflict", "Precondition failed: UID in precondition: a, UID in object meta: b"))
          ->code,
      Code::kPreconditionFailed);
}

TEST(ErrorOf, numbers_alone_have_a_meaning) {
  const Request get = request(Verb::kGet, {"ns", "p"});
  EXPECT_FALSE(error_of(get, {200, {}}));
  EXPECT_EQ(error_of(get, {401, {}})->code, Code::kUnauthenticated);
  EXPECT_EQ(error_of(get, {403, {}})->code, Code::kForbidden);
  EXPECT_EQ(error_of(get, {404, {}})->code, Code::kNotFound);
  EXPECT_EQ(error_of(get, {410, {}})->code, Code::kGone);
  EXPECT_EQ(error_of(get, {422, {}})->code, Code::kInvalidArgument);
  EXPECT_EQ(error_of(get, {503, Payload::text("<html>")})->code, Code::kUnavailable);
  Response busy{429, {}};
  busy.retry_after = seconds(3);
  EXPECT_EQ(error_of(get, busy)->code, Code::kTooManyRequests);
  EXPECT_EQ(error_of(get, busy)->retry_after, milliseconds(3000));
}

TEST(ErrorOf, a_failed_test_of_a_json_patch_is_a_failed_precondition) {
  Request patch = request(Verb::kPatch, {"ns", "p"});
  patch.patch = PatchKind::kJson;
  EXPECT_EQ(error_of(patch, status(422, "Invalid", "testing value failed"))->code, Code::kPreconditionFailed);
  patch.patch = PatchKind::kMerge;
  EXPECT_EQ(error_of(patch, status(422, "Invalid", "spec.x: is wrong"))->code, Code::kInvalidArgument);
}

TEST(Payload, is_parsed_and_decoded_once_and_shared_by_copies) {
  const Payload payload = Payload::text(R"({"kind":"Pod","metadata":{"name":"p"}})");
  const Payload copy = payload;
  const auto first = payload.as<Pod>();
  const auto second = copy.as<Pod>();
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->get(), second->get());
  EXPECT_EQ((*first)->metadata.name, "p");
}

TEST(Payload, a_tree_that_is_shared_is_copied_and_one_that_is_not_is_moved) {
  Payload payload = Payload::of({{"a", 1}});
  Payload copy = payload;
  EXPECT_EQ(*std::move(copy).take(), Json({{"a", 1}}));
  EXPECT_EQ(payload.text(), R"({"a":1})");
}

TEST(Payload, text_that_is_not_json_is_data_loss) {
  EXPECT_EQ(Payload::text("<html>").as<Pod>().error().code, Code::kDataLoss);
  EXPECT_EQ(Payload().json().error().code, Code::kDataLoss);
}

}  // namespace
}  // namespace pitcrew::kube
