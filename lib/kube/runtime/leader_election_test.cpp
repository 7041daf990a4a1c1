#include "lib/kube/runtime/leader_election.hpp"

#include <gtest/gtest.h>

namespace pitcrew::kube {
namespace {

// One candidate, whose requests are written down and answered by the test.
class LeaderElectionTest : public testing::Test {
 protected:
  std::string step(const LeaderElection::Input& input) {
    std::string text;
    for (const auto& action : election.step(input, now, 0)) {
      if (!text.empty()) text += " ";
      if (std::holds_alternative<LeaderElection::Get>(action)) {
        text += "get";
      } else if (const auto* create = std::get_if<LeaderElection::Create>(&action)) {
        text += "create";
        sent = create->lease;
      } else if (const auto* update = std::get_if<LeaderElection::Update>(&action)) {
        text += "update";
        sent = update->lease;
      } else if (const auto* sleep = std::get_if<LeaderElection::Sleep>(&action)) {
        text += "sleep";
        slept = sleep->duration;
      } else if (const auto* start = std::get_if<LeaderElection::StartLeading>(&action)) {
        text += "start(" + std::to_string(start->term.value) + ")";
      } else if (std::holds_alternative<LeaderElection::StopLeading>(action)) {
        text += "stop";
      } else {
        text += "released";
      }
    }
    return text;
  }
  std::string woken(Duration after = Duration(0)) {
    now += after;
    return step(LeaderElection::Woken{});
  }
  std::string read(std::optional<Lease> lease) { return step(LeaderElection::Read{std::move(lease)}); }
  std::string written() {
    sent.metadata.resource_version = std::to_string(++version);
    return step(LeaderElection::Written{sent});
  }
  std::string failed(Code code) { return step(LeaderElection::Written{Error(code, "x")}); }
  static Lease held_by(const std::string& holder, int64_t transitions = 4) {
    Lease lease;
    lease.metadata = {.name = "l", .ns = "ns", .uid = "u", .resource_version = "77"};
    lease.holder = holder;
    lease.duration_seconds = 10;
    lease.transitions = transitions;
    lease.renewed = Instant(seconds(1));  // of a clock that is far behind
    return lease;
  }
  void lead() {
    woken();
    read(std::nullopt);
    written();
  }

  LeaderElection election{{.lease = {"ns", "l"}, .identity = "me"}};
  Instant now{seconds(1'000'000)};
  Lease sent;
  Duration slept{0};
  int version = 0;
};

TEST_F(LeaderElectionTest, a_free_lease_is_taken_and_renewed) {
  EXPECT_EQ(woken(), "get");
  EXPECT_EQ(read(std::nullopt), "create");
  EXPECT_EQ(written(), "start(1) sleep");
  EXPECT_TRUE(election.leading(now));
  EXPECT_EQ(woken(slept), "update sleep");
  EXPECT_EQ(sent.transitions, 1);
  EXPECT_EQ(written(), "sleep");
  EXPECT_EQ(election.term(), Term(1));
}

TEST_F(LeaderElectionTest, bug_08_another_holder_is_judged_by_the_local_clock_alone) {
  woken();
  EXPECT_EQ(read(held_by("other")), "sleep");  // its renewTime is years ago: of no matter
  now += seconds(9);
  EXPECT_EQ(read(held_by("other")), "sleep");
  Lease renewed = held_by("other");
  renewed.renewed = Instant(seconds(2));
  EXPECT_EQ(read(renewed), "sleep");
  now += seconds(9);
  EXPECT_EQ(read(renewed), "sleep");
  now += seconds(1);
  EXPECT_EQ(read(renewed), "update");
  EXPECT_EQ(sent.holder, "me");
  EXPECT_EQ(sent.transitions, 5);
  EXPECT_EQ(sent.metadata.resource_version, "77");  // loses against anybody who was faster
  EXPECT_EQ(written(), "start(5) sleep");
}

TEST_F(LeaderElectionTest, who_loses_the_race_for_a_lease_goes_on_waiting) {
  woken();
  read(std::nullopt);
  EXPECT_EQ(failed(Code::kAlreadyExists), "sleep");
  EXPECT_FALSE(election.leading(now));
}

TEST_F(LeaderElectionTest, bug_08_a_leader_stops_before_anybody_else_may_start) {
  lead();
  now += milliseconds(1500);
  woken();
  failed(Code::kUnavailable);
  now += seconds(5);
  EXPECT_TRUE(election.leading(now));
  now += milliseconds(500);  // 7 s after the last renewal was sent
  EXPECT_FALSE(election.leading(now));
  EXPECT_EQ(woken(), "stop sleep");
}

TEST_F(LeaderElectionTest, a_paused_leader_finds_itself_deposed_before_it_does_anything) {
  lead();
  now += minutes(5);
  EXPECT_FALSE(election.leading(now));
  EXPECT_EQ(woken(), "stop sleep");
}

TEST_F(LeaderElectionTest, the_time_of_a_renewal_is_when_it_was_sent) {
  lead();
  woken(milliseconds(1500));
  now += seconds(5);
  EXPECT_EQ(written(), "sleep");
  EXPECT_EQ(slept, Duration(0));
  EXPECT_FALSE(election.leading(now + seconds(2)));
}

TEST_F(LeaderElectionTest, an_acquisition_that_is_answered_too_late_is_none) {
  woken();
  read(std::nullopt);
  now += seconds(8);
  EXPECT_EQ(written(), "sleep");
  EXPECT_FALSE(election.leading(now));
  // The record is ours; taking it again makes a new term.
  woken();
  EXPECT_EQ(read(sent), "update");
  EXPECT_EQ(written(), "start(2) sleep");
}

TEST_F(LeaderElectionTest, a_renewal_whose_answer_was_lost_is_looked_up_and_goes_on) {
  lead();
  woken(milliseconds(1500));
  failed(Code::kUnavailable);
  Lease landed = sent;
  landed.metadata.resource_version = "9";
  woken(milliseconds(1500));
  EXPECT_EQ(failed(Code::kConflict), "get sleep");
  EXPECT_EQ(read(landed), "update sleep");
  EXPECT_EQ(sent.metadata.resource_version, "9");
  EXPECT_EQ(written(), "sleep");
}

TEST_F(LeaderElectionTest, a_lease_that_another_holds_or_that_is_gone_ends_leadership_at_once) {
  lead();
  woken(milliseconds(1500));
  failed(Code::kConflict);
  EXPECT_EQ(read(held_by("other")), "stop sleep");

  election = LeaderElection({.lease = {"ns", "l"}, .identity = "me"});
  lead();
  woken(milliseconds(1500));
  failed(Code::kNotFound);
  EXPECT_EQ(read(std::nullopt), "stop sleep");
  // The next term is above the last, although the lease that counted is gone.
  woken();
  EXPECT_EQ(read(std::nullopt), "create");
  EXPECT_EQ(written(), "start(2) sleep");
}

TEST_F(LeaderElectionTest, there_is_never_more_than_one_write_under_way) {
  lead();
  woken(milliseconds(1500));
  EXPECT_EQ(failed(Code::kConflict), "get sleep");
  EXPECT_EQ(woken(milliseconds(1500)), "update sleep");  // the read is slow
  EXPECT_EQ(read(held_by("me", 1)), "");
  EXPECT_EQ(failed(Code::kConflict), "get sleep");
  EXPECT_EQ(read(held_by("me", 1)), "update sleep");
}

TEST_F(LeaderElectionTest, a_clean_stop_gives_the_lease_back) {
  lead();
  EXPECT_EQ(step(LeaderElection::ReleaseAsked{}), "update");
  EXPECT_EQ(sent.holder, "");
  EXPECT_EQ(sent.duration_seconds, 1);
  EXPECT_EQ(sent.transitions, 1);
  EXPECT_EQ(written(), "released");
  EXPECT_EQ(woken(seconds(5)), "");
}

TEST_F(LeaderElectionTest, a_release_waits_for_the_renewal_under_way) {
  lead();
  woken(milliseconds(1500));
  EXPECT_EQ(step(LeaderElection::ReleaseAsked{}), "");
  EXPECT_EQ(written(), "update");
  EXPECT_EQ(sent.holder, "");
  EXPECT_EQ(written(), "released");
}

TEST_F(LeaderElectionTest, a_follower_takes_a_released_lease_at_once) {
  woken();
  EXPECT_EQ(read(held_by("")), "update");
  EXPECT_EQ(sent.transitions, 5);
}

TEST_F(LeaderElectionTest, a_leader_that_hears_of_a_higher_term_goes_above_it) {
  lead();
  election.raise_term(Term(40));
  EXPECT_EQ(woken(milliseconds(1500)), "update sleep");
  EXPECT_EQ(sent.transitions, 41);
  EXPECT_EQ(written(), "start(41) sleep");
  EXPECT_EQ(election.term(), Term(41));
}

TEST_F(LeaderElectionTest, settings_that_would_allow_two_leaders_are_refused) {
  LeaderElectionSettings settings{.lease = {"ns", "l"}, .identity = "me"};
  EXPECT_TRUE(settings.validate());
  settings.renew_deadline = seconds(10);
  EXPECT_FALSE(settings.validate());
  settings.renew_deadline = milliseconds(1700);
  EXPECT_FALSE(settings.validate());
  settings = {.lease = {"ns", "l"}, .identity = ""};
  EXPECT_FALSE(settings.validate());
}

}  // namespace
}  // namespace pitcrew::kube
