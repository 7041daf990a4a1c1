#include "lib/kube/runtime/leader_elector.hpp"

#include "lib/base/random.hpp"
#include "tests/contract/kube/memory_world.hpp"

namespace pitcrew::contract {
namespace {

using kube::LeaderElector;

// A candidate with a connection of its own.
struct Candidate {
  Candidate(Loop& loop, local::ApiServer& server, const std::string& name)
      : transport(loop, server), name(name), loop(loop) {
    start();
  }
  void start() {
    elector =
        std::make_unique<LeaderElector>(loop, transport, std::hash<std::string>()(name),
                                        kube::LeaderElectionSettings{.lease = {"ns", "leader"}, .identity = name},
                                        LeaderElector::Callbacks{[this](Term term) { terms.push_back(term.value); },
                                                                 [this](const std::string&) { ++stops; }});
    elector->start();
  }
  bool leading() const { return elector && elector->leading(); }

  local::MemoryTransport transport;
  std::string name;
  Loop& loop;
  std::unique_ptr<LeaderElector> elector;
  std::vector<uint64_t> terms;
  int stops = 0;
};

class LeaderElectorTest : public MemoryWorld {
 protected:
  std::optional<Duration> time_until(const std::function<bool()>& condition, Duration limit = minutes(1)) {
    const Instant start = loop.now();
    while (!condition()) {
      if (loop.now() - start > limit) return std::nullopt;
      loop.run_for(milliseconds(50));
    }
    return loop.now() - start;
  }
};

TEST_F(LeaderElectorTest, one_of_two_leads_and_a_crash_is_taken_over_within_12_seconds) {
  Candidate a(loop, server, "a");
  loop.run_for(seconds(3));
  Candidate b(loop, server, "b");
  loop.run_for(seconds(30));
  EXPECT_TRUE(a.leading());
  EXPECT_FALSE(b.leading());
  a.elector.reset();  // a crash: nothing is given back
  const auto taken = time_until([&] { return b.leading(); });
  ASSERT_TRUE(taken);
  EXPECT_LT(*taken, seconds(12));
  EXPECT_GT(b.terms.back(), a.terms.back());
}

TEST_F(LeaderElectorTest, a_clean_hand_over_takes_less_than_3_seconds) {
  Candidate a(loop, server, "a");
  loop.run_for(seconds(3));
  Candidate b(loop, server, "b");
  loop.run_for(seconds(30));
  bool released = false;
  a.elector->release([&] { released = true; });
  const auto taken = time_until([&] { return b.leading(); });
  ASSERT_TRUE(taken);
  EXPECT_LT(*taken, seconds(3));
  EXPECT_TRUE(released);
  EXPECT_EQ(a.stops, 0);
}

TEST_F(LeaderElectorTest, a_leader_that_is_cut_off_stops_before_the_next_one_starts) {
  Candidate a(loop, server, "a");
  loop.run_for(seconds(3));
  Candidate b(loop, server, "b");
  loop.run_for(seconds(30));
  a.transport.set_connected(false);
  const auto stopped = time_until([&] { return a.stops == 1; });
  ASSERT_TRUE(stopped);
  EXPECT_LE(*stopped, milliseconds(7100));
  EXPECT_FALSE(b.leading());
  ASSERT_TRUE(time_until([&] { return b.leading(); }));
  a.transport.set_connected(true);
  loop.run_for(minutes(1));
  EXPECT_FALSE(a.leading());
}

TEST_F(LeaderElectorTest, bug_09_a_busy_client_does_not_starve_the_lease) {
  Candidate a(loop, server, "a");
  loop.run_for(seconds(3));
  kube::Client busy(loop, a.transport, 5, {.rate = 1, .burst = 1});
  for (int i = 0; i < 500; ++i) busy.get<kube::Pod>({"ns", "none"}, [](const Result<kube::Ptr<kube::Pod>>&) {});
  loop.run_for(minutes(2));
  EXPECT_TRUE(a.leading());
  EXPECT_EQ(a.terms.size(), 1u);
}

TEST_F(LeaderElectorTest, the_leader_alone_writes_and_only_its_lease) {
  Candidate a(loop, server, "a");
  Candidate b(loop, server, "b");
  loop.run_for(seconds(10));
  const uint64_t writes = server.writes();
  loop.run_for(minutes(1));
  EXPECT_EQ(server.writes(), writes + 40);  // one each 1.5 s
  EXPECT_EQ(server.writes(), server.writes(kube::Lease::type()));
}

TEST_F(LeaderElectorTest, there_are_never_two_leaders_and_terms_only_grow_under_random_faults) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    VirtualLoop own_loop;
    local::ApiServer own_server(own_loop, {.seed = seed});
    Random random(seed);
    std::vector<std::unique_ptr<Candidate>> candidates;
    for (const char* name : {"a", "b", "c"}) {
      candidates.push_back(std::make_unique<Candidate>(own_loop, own_server, name));
      candidates.back()->transport.set_faults(
          [&random](const kube::Request&) {
            local::RequestFault fault;
            fault.request_delay = milliseconds(random.below(300));
            fault.reply_delay = milliseconds(random.below(300));
            if (random.chance(0.1)) fault.lost_reply = Error(Code::kUnavailable, "reset");
            if (random.chance(0.1)) fault.before = Error(Code::kUnavailable, "refused");
            return fault;
          },
          {});
    }
    uint64_t highest = 0;
    size_t acquisitions = 0;
    for (int i = 0; i < 6000; ++i) {
      own_loop.run_for(milliseconds(100));
      int leaders = 0;
      for (const auto& candidate : candidates) {
        if (!candidate->leading()) continue;
        ++leaders;
        const uint64_t term = candidate->elector->term().value;
        ASSERT_GE(term, highest);
        if (term > highest) ++acquisitions;
        highest = term;
      }
      ASSERT_LE(leaders, 1);
      Candidate& unlucky = *candidates[random.below(candidates.size())];
      if (random.chance(0.005)) unlucky.transport.set_connected(!unlucky.transport.connected());
      if (random.chance(0.005)) {
        if (unlucky.elector) {
          unlucky.elector.reset();
        } else {
          unlucky.start();
        }
      }
    }
    EXPECT_GE(acquisitions, 2u);
  }
}

}  // namespace
}  // namespace pitcrew::contract
