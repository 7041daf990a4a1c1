#include "operator/channel/channel_hub.hpp"

#include <gtest/gtest.h>

#include "lib/api/training_job.hpp"
#include "lib/local/api/api_server.hpp"
#include "lib/local/api/memory_transport.hpp"
#include "operator/channel/memory_channel.hpp"

namespace pitcrew::control {
namespace {

using namespace api::channel;
using Connection = MemoryChannelServer::Connection;

// A hub that leads in term 3, an API server with one pod of the job `job-1`, and launchers that connect to it.
class ChannelHubTest : public testing::Test {
 protected:
  ChannelHubTest() {
    hub_.start();
    hub_.lead(Term(3));
    pod_uid_ = make_pod("p0", "job-1");
  }

  std::string make_pod(const std::string& name, const std::string& job_uid) {
    const Json owner{{"apiVersion", "pitcrew.dev/v1alpha1"},
                     {"kind", "TrainingJob"},
                     {"name", "j"},
                     {"uid", job_uid},
                     {"controller", true}};
    // The job itself need not exist: owners are collected by name and UID only when they are deleted.
    const Json pod{{"apiVersion", "v1"},
                   {"kind", "Pod"},
                   {"metadata", {{"name", name}, {"namespace", "a"}, {"ownerReferences", Json::array({owner})}}},
                   {"spec", {{"nodeName", "n1"}, {"containers", Json::array({{{"name", "c"}, {"image", "i"}}})}}}};
    std::string uid;
    client_.create<kube::Pod>(*kube::Pod::decode(pod), [&](Result<kube::Ptr<kube::Pod>> created) {
      ASSERT_TRUE(created.ok()) << created.error().message;
      uid = (*created)->metadata.uid;
    });
    loop_.run_for(milliseconds(100));
    return uid;
  }

  Hello hello(const std::string& pod, const std::string& uid, const std::string& job = "job-1") const {
    Hello said;
    said.job_uid = job;
    said.pod_name = pod;
    said.pod_uid = uid;
    said.node = "node-of-" + pod;
    said.boot = "b1";
    said.address = "10.0.0.1";
    return said;
  }

  struct Launcher {
    std::unique_ptr<Connection> connection;
    std::vector<std::string> received;
    std::optional<CloseCode> closed;
    std::string reason;
  };

  std::unique_ptr<Launcher> connect(const std::string& token, const Hello& said) {
    auto launcher = std::make_unique<Launcher>();
    Launcher* self = launcher.get();
    launcher->connection = channel_.connect(token, "10.0.0.1:1",
                                            {[self](std::string text) { self->received.push_back(std::move(text)); },
                                             [self](CloseCode code, std::string reason) {
                                               self->closed = code;
                                               self->reason = std::move(reason);
                                             }});
    launcher->connection->send(encode(FromLauncher(said)));
    loop_.run_for(milliseconds(200));
    return launcher;
  }

  std::string token(const std::string& pod, const std::string& uid, const std::string& audience = kAudience) {
    return server_.issue_token(audience, {"a", pod}, uid, hours(1));
  }

  VirtualLoop loop_;
  local::ApiServer server_{loop_};
  local::MemoryTransport transport_{loop_, server_};
  kube::Client client_{loop_, transport_, 1};
  MemoryChannelServer channel_{loop_, Config{{"10.0.0.9:1"}, "pitcrew-channel", ""}};
  std::map<std::string, ObjectKey> jobs_{{"job-1", {"a", "one"}}, {"job-2", {"a", "two"}}};
  SessionAuth auth_{loop_, client_, [](const ObjectKey&) { return kube::Ptr<kube::Pod>(); },
                    [this](const std::string& uid) -> std::optional<ObjectKey> {
                      const auto job = jobs_.find(uid);
                      if (job == jobs_.end()) return std::nullopt;
                      return job->second;
                    }};
  std::vector<std::string> changed_;
  std::optional<Term> higher_;
  ChannelHub hub_{loop_,
                  channel_,
                  auth_,
                  {},
                  {[this](const std::string& job, bool) { changed_.push_back(job); },
                   {},
                   [this](Term term) { higher_ = term; },
                   {}},
                  {}};
  std::string pod_uid_;
};

TEST_F(ChannelHubTest, a_launcher_with_its_own_token_is_let_in_and_heard) {
  const auto launcher = connect(token("p0", pod_uid_), hello("p0", pod_uid_));
  EXPECT_FALSE(launcher->closed) << launcher->reason;
  ASSERT_EQ(hub_.launchers_of("job-1").size(), 1u);
  EXPECT_TRUE(hub_.launchers_of("job-1")[0].connected);
  EXPECT_EQ(hub_.connected_nodes(), 1u);
  ASSERT_TRUE(hub_.send(pod_uid_, ToLauncher(Finish{})));
  loop_.run_for(seconds(1));
  ASSERT_EQ(launcher->received.size(), 1u);
}

TEST_F(ChannelHubTest, reviews_whose_time_is_over_are_not_kept_until_there_are_too_many) {
  const SessionAuth::Claim claim{"p0", pod_uid_, "job-1"};
  const auto check_many = [&] {
    for (int i = 0; i < 50; ++i) {
      // A token's time is in it, so that each second has another one.
      loop_.run_for(seconds(1));
      auth_.check(token("p0", pod_uid_), claim, [](Status) {});
    }
    loop_.run_for(seconds(1));
  };
  check_many();
  const size_t of_one_minute = auth_.remembered();
  EXPECT_GT(of_one_minute, 1u);
  for (int i = 0; i < 30; ++i) check_many();
  // Those of `remember`, and as many again until they are swept.
  EXPECT_LE(auth_.remembered(), 12 * of_one_minute);
}

TEST_F(ChannelHubTest, launchers_without_a_connection_go_with_their_job) {
  const auto here = connect(token("p0", pod_uid_), hello("p0", pod_uid_));
  const std::string other = make_pod("p1", "job-1");
  auto away = connect(token("p1", other), hello("p1", other));
  away->connection.reset();
  loop_.run_for(seconds(1));
  ASSERT_EQ(hub_.launchers_of("job-1").size(), 2u);
  hub_.forget_job("job-1");
  ASSERT_EQ(hub_.launchers_of("job-1").size(), 1u);
  EXPECT_FALSE(here->closed) << "its pod still runs";
  hub_.forget(pod_uid_);
  EXPECT_EQ(hub_.kept(), 0u);
}

TEST_F(ChannelHubTest, a_token_of_another_audience_is_refused) {
  const auto launcher = connect(token("p0", pod_uid_, "vault"), hello("p0", pod_uid_));
  EXPECT_EQ(launcher->closed, CloseCode::kUnauthorized);
  EXPECT_TRUE(hub_.launchers_of("job-1").empty());
}

TEST_F(ChannelHubTest, a_pod_of_another_job_is_refused) {
  const std::string other = make_pod("p1", "job-2");
  const auto launcher = connect(token("p1", other), hello("p1", other, "job-1"));
  EXPECT_EQ(launcher->closed, CloseCode::kUnauthorized);
  EXPECT_NE(launcher->reason.find("does not belong to the job"), std::string::npos) << launcher->reason;
}

TEST_F(ChannelHubTest, a_pod_of_another_namespace_may_name_the_job_as_its_owner_and_is_refused) {
  jobs_["job-1"] = {"b", "one"};
  const auto launcher = connect(token("p0", pod_uid_), hello("p0", pod_uid_));
  EXPECT_EQ(launcher->closed, CloseCode::kUnauthorized);
  EXPECT_NE(launcher->reason.find("namespace"), std::string::npos) << launcher->reason;
}

TEST_F(ChannelHubTest, a_launcher_of_a_job_that_is_not_known_yet_is_asked_to_come_again) {
  jobs_.clear();
  const auto launcher = connect(token("p0", pod_uid_), hello("p0", pod_uid_));
  EXPECT_EQ(launcher->closed, CloseCode::kTryAgain);
}

TEST_F(ChannelHubTest, one_pod_may_not_speak_for_another) {
  const std::string other = make_pod("p1", "job-1");
  const auto launcher = connect(token("p1", other), hello("p0", pod_uid_));
  EXPECT_EQ(launcher->closed, CloseCode::kUnauthorized);
}

TEST_F(ChannelHubTest, a_token_of_a_pod_that_is_gone_is_refused_though_its_name_lives_again) {
  const std::string stale = token("p0", pod_uid_);
  kube::RemoveOptions options;
  options.grace_seconds = 0;
  client_.remove<kube::Pod>({"a", "p0"}, options, [](Status) {});
  loop_.run_for(seconds(1));
  make_pod("p0", "job-1");
  const auto launcher = connect(stale, hello("p0", pod_uid_));
  EXPECT_EQ(launcher->closed, CloseCode::kUnauthorized);
}

TEST_F(ChannelHubTest, a_reviewed_token_is_remembered_and_its_pod_is_still_looked_at) {
  const std::string good = token("p0", pod_uid_);
  connect(good, hello("p0", pod_uid_));
  connect(good, hello("p0", pod_uid_));
  EXPECT_EQ(auth_.reviews(), 1u);
  kube::RemoveOptions options;
  options.grace_seconds = 0;
  client_.remove<kube::Pod>({"a", "p0"}, options, [](Status) {});
  loop_.run_for(seconds(1));
  EXPECT_EQ(connect(good, hello("p0", pod_uid_))->closed, CloseCode::kUnauthorized);
}

TEST_F(ChannelHubTest, whoever_does_not_lead_sends_launchers_away) {
  const auto before = connect(token("p0", pod_uid_), hello("p0", pod_uid_));
  hub_.step_down();
  loop_.run_for(seconds(1));
  EXPECT_EQ(before->closed, CloseCode::kNotLeader);
  EXPECT_EQ(connect(token("p0", pod_uid_), hello("p0", pod_uid_))->closed, CloseCode::kNotLeader);
}

TEST_F(ChannelHubTest, another_major_version_is_refused_with_words) {
  Hello said = hello("p0", pod_uid_);
  said.major = kProtocolMajor + 1;
  const auto launcher = connect(token("p0", pod_uid_), said);
  EXPECT_EQ(launcher->closed, CloseCode::kProtocol);
}

TEST(ChannelVersion, launchers_of_two_minor_versions_back_and_newer_ones_are_understood) {
  EXPECT_TRUE(understands({1, 0}, {1, 0}));
  EXPECT_TRUE(understands({1, 7}, {1, 5}));
  EXPECT_FALSE(understands({1, 7}, {1, 4}));
  EXPECT_TRUE(understands({1, 5}, {1, 7})) << "after a rollback";
  EXPECT_FALSE(understands({2, 0}, {1, 9}));
  EXPECT_FALSE(understands({1, 9}, {2, 0}));
}

TEST_F(ChannelHubTest, a_launcher_of_a_newer_minor_version_is_let_in) {
  Hello said = hello("p0", pod_uid_);
  said.minor = kProtocolMinor + 1;
  EXPECT_FALSE(connect(token("p0", pod_uid_), said)->closed);
}

TEST_F(ChannelHubTest, a_newer_connection_of_a_pod_takes_the_place_of_the_older) {
  const auto first = connect(token("p0", pod_uid_), hello("p0", pod_uid_));
  const auto second = connect(token("p0", pod_uid_), hello("p0", pod_uid_));
  EXPECT_EQ(first->closed, CloseCode::kReplaced);
  EXPECT_FALSE(second->closed);
  EXPECT_TRUE(hub_.launcher(pod_uid_)->connected);
}

TEST_F(ChannelHubTest, a_cut_connection_is_noticed_by_pings_and_shown_as_a_silent_node) {
  const auto launcher = connect(token("p0", pod_uid_), hello("p0", pod_uid_));
  launcher->connection->cut();
  loop_.run_for(seconds(4));
  EXPECT_TRUE(hub_.launcher(pod_uid_)->connected);
  changed_.clear();
  loop_.run_for(seconds(2));
  EXPECT_FALSE(hub_.launcher(pod_uid_)->connected);
  ASSERT_EQ(hub_.silent_nodes().size(), 1u);
  EXPECT_EQ(hub_.silent_nodes()[0].node, "node-of-p0");
  EXPECT_EQ(hub_.connected_nodes(), 0u);
  EXPECT_EQ(changed_, std::vector<std::string>{"job-1"});
  loop_.run_for(minutes(11));
  EXPECT_TRUE(hub_.silent_nodes().empty());
}

TEST_F(ChannelHubTest, a_launcher_that_has_seen_a_higher_term_says_so) {
  Hello said = hello("p0", pod_uid_);
  said.seen = {Term(9), EpochNumber(1)};
  connect(token("p0", pod_uid_), said);
  EXPECT_EQ(higher_, Term(9));
}

TEST_F(ChannelHubTest, a_connection_that_says_nothing_is_ended) {
  bool closed = false;
  const auto connection = channel_.connect("t", "x", {{}, [&](CloseCode, const std::string&) { closed = true; }});
  loop_.run_for(seconds(11));
  EXPECT_TRUE(closed);
  EXPECT_EQ(hub_.sessions(), 0u);
}

TEST_F(ChannelHubTest, too_large_a_message_ends_the_connection) {
  const auto launcher = connect(token("p0", pod_uid_), hello("p0", pod_uid_));
  launcher->connection->send(std::string(kMaxFromLauncher + 1, 'x'));
  loop_.run_for(seconds(1));
  EXPECT_EQ(launcher->closed, CloseCode::kTooBig);
}

TEST_F(ChannelHubTest, words_of_an_older_epoch_change_nothing) {
  Hello said = hello("p0", pod_uid_);
  said.seen = {Term(3), EpochNumber(5)};
  const auto launcher = connect(token("p0", pod_uid_), said);
  Exited old;
  old.epoch = {Term(3), EpochNumber(4)};
  old.rank = Rank(0);
  launcher->connection->send(encode(FromLauncher(old)));
  loop_.run_for(seconds(1));
  EXPECT_TRUE(hub_.launcher(pod_uid_)->exited.empty());
  EXPECT_EQ(hub_.launcher(pod_uid_)->seen.number, EpochNumber(5));
}

}  // namespace
}  // namespace pitcrew::control
