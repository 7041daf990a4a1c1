#include "operator/execute/executor.hpp"

#include <gtest/gtest.h>

#include "lib/kube/types/disruption_budget.hpp"
#include "lib/kube/types/event.hpp"
#include "lib/local/api/api_server.hpp"
#include "lib/local/api/memory_transport.hpp"
#include "operator/execute/capacity.hpp"
#include "operator/execute/epoch_key.hpp"

namespace pitcrew::control {
namespace {

using local::RequestFault;

// An API server with one job in it, and an executor that works on it.
class ExecutorTest : public testing::Test {
 protected:
  ExecutorTest() {
    server_.register_type(api::TrainingJob::type(), {});
    api::TrainingJob job;
    job.metadata.name = "llama";
    job.metadata.ns = "team-a";
    job.spec.replicas = 2;
    job.spec.container = "train";
    job.spec.pod_template = {
        {"spec",
         {{"containers", Json::array({{{"name", "train"}, {"image", "i"}, {"command", Json::array({"train"})}}})}}}};
    client_.create<api::TrainingJob>(job, [this](Result<kube::Ptr<api::TrainingJob>> created) {
      ASSERT_TRUE(created.ok()) << created.error().message;
      job_ = *created;
    });
    loop_.run_for(seconds(1));
    PITCREW_INVARIANT(job_ != nullptr, "the job was created");
  }

  Result<Executor::Outcome> execute(Plan plan) {
    std::optional<Result<Executor::Outcome>> outcome;
    if (plan.resource_version.empty()) plan.resource_version = job_->metadata.resource_version;
    executor_.execute(job_, std::move(plan), [&](Result<Executor::Outcome> result) { outcome = std::move(result); });
    loop_.run_for(seconds(120));
    PITCREW_INVARIANT(outcome.has_value(), "the executor answered");
    return *outcome;
  }

  size_t pods() const { return server_.count(kube::Pod::type()); }
  kube::Ptr<api::TrainingJob> live_job() const {
    return *server_.find(api::TrainingJob::type(), job_->metadata.key()).as<api::TrainingJob>();
  }
  kube::Ptr<kube::Pod> pod(const std::string& name) const {
    const kube::Payload found = server_.find(kube::Pod::type(), {"team-a", name});
    return found.empty() ? nullptr : *found.as<kube::Pod>();
  }
  std::string name(uint32_t serial) const { return api::pod_name(*job_, Serial(serial)); }

  VirtualLoop loop_;
  local::ApiServer server_{loop_};
  local::MemoryTransport transport_{loop_, server_};
  kube::Client client_{loop_, transport_, 1};
  kube::EventRecorder events_{loop_, client_, 2, {}};
  kube::Expectations expectations_{loop_};
  std::string refused_;
  bool leads_ = true;
  std::vector<std::pair<std::string, api::channel::ToLauncher>> sent_;
  kube::Ptr<api::TrainingJob> job_;
  Executor executor_{client_,
                     events_,
                     expectations_,
                     ExecutorSettings{{"launcher:1"}, 64, std::string(32, 's')},
                     ExecutorHooks{[this] { return leads_; }, [](const ObjectKey&) { return kube::Ptr<kube::Pod>(); },
                                   [](const std::string&) { return false; },
                                   [this](const std::string& uid, const api::channel::ToLauncher& message) {
                                     sent_.emplace_back(uid, message);
                                     return true;
                                   },
                                   [] { return std::string("{}"); },
                                   [this](const std::string&, std::string why) { refused_ = std::move(why); }},
                     {}};
};

TEST_F(ExecutorTest, a_status_write_carries_the_version_that_the_plan_rests_on) {
  Plan plan;
  plan.status.emplace();
  plan.status->epoch.number = EpochNumber(5);
  const auto outcome = execute(plan);
  ASSERT_TRUE(outcome.ok());
  ASSERT_NE(outcome->written, nullptr);
  EXPECT_EQ(live_job()->status.epoch.number, EpochNumber(5));
  // The same plan again: the job has moved on, nothing is written.
  plan.status->epoch.number = EpochNumber(6);
  const auto again = execute(plan);
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(again->stale);
  EXPECT_EQ(live_job()->status.epoch.number, EpochNumber(5));
}

TEST_F(ExecutorTest, a_create_whose_reply_was_lost_is_repeated_and_makes_no_second_pod) {
  Plan plan;
  plan.creates = {{Serial(0), Slot(0), "n1"}, {Serial(1), Slot(1), "n2"}};
  bool lose = true;
  transport_.set_faults(
      [&](const kube::Request& request) {
        RequestFault fault;
        if (request.verb == kube::Verb::kCreate && request.type == kube::Pod::type() && std::exchange(lose, false)) {
          fault.lost_reply = Error(Code::kUnavailable, "the connection broke");
        }
        return fault;
      },
      {});
  EXPECT_FALSE(execute(plan).ok());
  EXPECT_EQ(pods(), 1u) << "one goes first";
  ASSERT_TRUE(execute(plan).ok());
  EXPECT_EQ(pods(), 2u);
  EXPECT_EQ(pod(name(0))->required_node, "n1");
}

TEST_F(ExecutorTest, the_jobs_disruption_budget_is_made_once_and_goes_with_the_job) {
  Plan plan;
  plan.create_budget = true;
  ASSERT_TRUE(execute(plan).ok());
  ASSERT_TRUE(execute(plan).ok()) << "it is there already";
  EXPECT_EQ(server_.count(kube::DisruptionBudget::type()), 1u);
  const auto budget = server_.find(kube::DisruptionBudget::type(), {"team-a", budget_name(*live_job())});
  const auto read = budget.as<kube::DisruptionBudget>();
  ASSERT_TRUE(read.ok());
  EXPECT_EQ((*read)->unhealthy_eviction, "AlwaysAllow");
  ASSERT_NE((*read)->metadata.controller(), nullptr);
  EXPECT_EQ((*read)->metadata.controller()->uid, live_job()->metadata.uid);
}

TEST_F(ExecutorTest, a_pod_that_the_api_server_refuses_for_good_is_told_as_an_event) {
  server_.set_admission(kube::Pod::type(), [](const Json*, Json&) -> Status {
    return Error(Code::kForbidden, "violates PodSecurity \"restricted:latest\"");
  });
  Plan plan;
  plan.creates = {{Serial(0), Slot(0), "n1"}};
  EXPECT_FALSE(execute(plan).ok());
  loop_.run_for(seconds(1));
  std::string notes;
  server_.for_each(kube::Event::type(), [&](const kube::Payload& event) { notes += event.text(); });
  EXPECT_NE(notes.find("FailedCreate"), std::string::npos);
  EXPECT_NE(notes.find("violates PodSecurity"), std::string::npos);
  EXPECT_NE(refused_.find("violates PodSecurity"), std::string::npos);
}

TEST_F(ExecutorTest, a_pod_of_that_name_that_is_not_ours_is_an_error_and_is_left_alone) {
  const Json stranger{{"apiVersion", "v1"},
                      {"kind", "Pod"},
                      {"metadata", {{"name", name(0)}, {"namespace", "team-a"}}},
                      {"spec", {{"containers", Json::array({{{"name", "c"}, {"image", "i"}}})}}}};
  client_.create_raw(kube::Pod::type(), stranger, [](Result<kube::Payload>) {});
  loop_.run_for(seconds(1));
  Plan plan;
  plan.creates = {{Serial(0), Slot(0), "n1"}};
  const auto outcome = execute(plan);
  ASSERT_FALSE(outcome.ok());
  EXPECT_NE(outcome.error().message.find("is not this job's"), std::string::npos);
  EXPECT_EQ(pods(), 1u);
}

TEST_F(ExecutorTest, nothing_is_deleted_on_the_word_of_an_older_job) {
  Plan create;
  create.creates = {{Serial(0), Slot(0), "n1"}};
  ASSERT_TRUE(execute(create).ok());
  Plan status;
  status.status.emplace();
  status.status->epoch.number = EpochNumber(2);
  ASSERT_TRUE(execute(status).ok());
  Plan plan;  // rests on the job as it was before the status write
  plan.deletes = {{name(0), pod(name(0))->metadata.uid, "test", true}};
  const auto outcome = execute(plan);
  ASSERT_TRUE(outcome.ok());
  EXPECT_TRUE(outcome->stale);
  EXPECT_EQ(pods(), 1u);
  plan.resource_version = live_job()->metadata.resource_version;
  ASSERT_TRUE(execute(plan).ok());
  EXPECT_EQ(pods(), 0u);
}

TEST_F(ExecutorTest, a_pod_of_another_uid_is_not_deleted) {
  Plan create;
  create.creates = {{Serial(0), Slot(0), "n1"}};
  ASSERT_TRUE(execute(create).ok());
  Plan plan;
  plan.deletes = {{name(0), "another-uid", "test", true}};
  ASSERT_TRUE(execute(plan).ok());
  EXPECT_EQ(pods(), 1u);
  EXPECT_EQ(expectations_.state(job_->metadata.key()), kube::Expectations::State::kPending)
      << "the created pod, which no cache shows";
}

TEST_F(ExecutorTest, does_nothing_once_it_does_not_lead) {
  leads_ = false;
  Plan plan;
  plan.status.emplace();
  const uint64_t writes = server_.writes();
  EXPECT_EQ(execute(plan).error().code, Code::kCancelled);
  EXPECT_EQ(server_.writes(), writes);
}

TEST_F(ExecutorTest, an_epoch_gets_its_key_on_the_way_out) {
  Plan plan;
  api::channel::Epoch epoch;
  epoch.id = {Term(2), EpochNumber(7)};
  plan.messages.push_back({"pod", "uid", epoch});
  ASSERT_TRUE(execute(plan).ok());
  ASSERT_EQ(sent_.size(), 1u);
  const auto& key = std::get<api::channel::Epoch>(sent_[0].second).key;
  EXPECT_EQ(key, epoch_key(std::string(32, 's'), job_->metadata.uid, epoch.id));
  EXPECT_NE(key, epoch_key(std::string(32, 's'), job_->metadata.uid, {Term(2), EpochNumber(8)}));
  EXPECT_EQ(key.size(), 44u) << "base64 of 32 bytes";
}

TEST_F(ExecutorTest, each_create_that_succeeds_allows_one_more_under_way) {
  Plan plan;
  for (uint32_t i = 0; i < 20; ++i) plan.creates.push_back({Serial(i), Slot(i), ""});
  size_t under_way = 0;
  transport_.set_faults(
      [&](const kube::Request& request) {
        RequestFault fault;
        if (request.type == kube::Pod::type() && ++under_way > 3) fault.before = Error(Code::kForbidden, "quota");
        return fault;
      },
      {});
  EXPECT_FALSE(execute(plan).ok());
  // Three succeeded, the four that were allowed then failed, and no more were tried.
  EXPECT_EQ(pods(), 3u);
  EXPECT_EQ(under_way, 7u);
}

TEST(Capacity, what_pods_and_other_jobs_take_is_not_free) {
  Capacity capacity;
  auto node = std::make_shared<kube::Node>();
  node->metadata.name = "n1";
  node->allocatable = {{"cpu", 8000}, {"pods", 10'000}};
  capacity.node_changed(node);
  kube::Pod pod;
  pod.required_node = "n1";  // pinned, not bound yet
  pod.requests = {{"cpu", 3000}};
  capacity.pod_added(pod);
  capacity.set_reserved("job-a", {{"n1", {{"cpu", 2000}}}});
  EXPECT_EQ(capacity.seen_by("job-b")->at(0).free.at("cpu"), 3000);
  EXPECT_EQ(capacity.seen_by("job-a")->at(0).free.at("cpu"), 5000) << "its own reservation is its own business";
  EXPECT_EQ(capacity.seen_by("job-a")->at(0).free.at("pods"), 9000);
  capacity.pod_removed(pod);
  EXPECT_EQ(capacity.seen_by("job-a")->at(0).free.at("cpu"), 8000);
}

}  // namespace
}  // namespace pitcrew::control
