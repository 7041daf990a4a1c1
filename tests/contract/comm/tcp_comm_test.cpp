#include "trainer/comm/tcp_comm.hpp"

#include <future>

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/contract/comm/comm_world.hpp"
#include "tests/contract/comm/killed_process.hpp"
#include "trainer/comm/observed_comm.hpp"

namespace pitcrew::trainer {
namespace {

TcpSettings settings_of(uint32_t rank, uint32_t size, uint16_t port) {
  TcpSettings settings;
  settings.rank = rank;
  settings.size = size;
  settings.master_port = port;
  settings.job = "job-1";
  settings.term = 2;
  settings.epoch = 5;
  return settings;
}

TEST(TcpComm, several_communicators_over_one_meeting_do_not_mix) {
  const uint16_t port = free_port();
  auto other = std::async(std::launch::async, [&] { return TcpComm::connect(settings_of(1, 2, port), 2); });
  auto mine = TcpComm::connect(settings_of(0, 2, port), 2);
  auto theirs = other.get();
  ASSERT_TRUE(mine.ok()) << mine.error().message;
  ASSERT_TRUE(theirs.ok()) << theirs.error().message;
  // Sent on both, received in the other order.
  const std::byte a{1}, b{2};
  const Comm::Send first{1, std::span(&a, 1)}, second{1, std::span(&b, 1)};
  ASSERT_TRUE((*mine)[0]->exchange(std::span(&first, 1), {}).ok());
  ASSERT_TRUE((*mine)[1]->exchange(std::span(&second, 1), {}).ok());
  std::byte got{};
  const Comm::Receive receive{0, std::span(&got, 1)};
  ASSERT_TRUE((*theirs)[1]->exchange({}, std::span(&receive, 1)).ok());
  EXPECT_EQ(got, b);
  ASSERT_TRUE((*theirs)[0]->exchange({}, std::span(&receive, 1)).ok());
  EXPECT_EQ(got, a);
}

TEST(TcpComm, processes_of_another_epoch_job_or_world_are_refused_and_do_no_harm) {
  const uint16_t port = free_port();
  auto master = std::async(std::launch::async, [&] { return TcpComm::connect(settings_of(0, 2, port)); });

  TcpSettings zombie = settings_of(1, 2, port);
  zombie.epoch = 4;
  auto refused = TcpComm::connect(zombie);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Code::kConflict);
  EXPECT_NE(refused.error().message.find("epoch 5 of term 2, this process to epoch 4"), std::string::npos)
      << refused.error().message;

  TcpSettings stranger = settings_of(1, 2, port);
  stranger.job = "job-2";
  EXPECT_EQ(TcpComm::connect(stranger).error().code, Code::kConflict);
  TcpSettings other_world = settings_of(1, 3, port);
  EXPECT_EQ(TcpComm::connect(other_world).error().code, Code::kConflict);

  auto member = TcpComm::connect(settings_of(1, 2, port));
  ASSERT_TRUE(member.ok()) << member.error().message;
  EXPECT_TRUE(master.get().ok());
}

TEST(TcpComm, strays_that_say_nothing_or_nonsense_do_not_stop_the_meeting) {
  const uint16_t port = free_port();
  auto master = std::async(std::launch::async, [&] { return TcpComm::connect(settings_of(0, 2, port)); });
  const Address address = *Address::parse("127.0.0.1", port);
  const Deadline deadline = Deadline::in(minutes(1));
  auto silent = connect_to(address, deadline);
  ASSERT_TRUE(silent.ok());
  auto nonsense = connect_to(address, deadline);
  ASSERT_TRUE(nonsense.ok());
  std::array<std::byte, 200> junk{};
  ASSERT_TRUE(send_all(*nonsense, junk, deadline).ok());
  auto member = TcpComm::connect(settings_of(1, 2, port));
  EXPECT_TRUE(member.ok()) << member.error().message;
  EXPECT_TRUE(master.get().ok());
}

TEST(TcpComm, who_did_not_come_to_the_meeting_is_named) {
  TcpSettings settings = settings_of(0, 3, free_port());
  settings.connect_timeout = milliseconds(50);
  auto alone = TcpComm::connect(settings);
  ASSERT_FALSE(alone.ok());
  EXPECT_EQ(alone.error().code, Code::kDeadlineExceeded);
  EXPECT_NE(alone.error().message.find("2 of 3 ranks did not come: 1, 2"), std::string::npos) << alone.error().message;
}

TEST(TcpComm, connecting_can_be_cancelled) {
  TcpSettings settings = settings_of(1, 2, free_port());
  settings.cancelled = [] { return true; };
  EXPECT_EQ(TcpComm::connect(settings).error().code, Code::kCancelled);
}

TEST(TcpComm, names_are_not_looked_up) {
  TcpSettings settings = settings_of(1, 2, free_port());
  settings.master_address = "node-7.cluster.local";
  auto refused = TcpComm::connect(settings);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Code::kInvalidArgument);
}

TEST(TcpComm, a_rank_that_ends_early_in_good_health_is_not_taken_for_dead) {
  TcpWorld world(3, minutes(5));
  world.destroy(2);
  auto other = std::async(std::launch::async, [&] {
    const Comm::Send send{0, {}};
    return world[1].exchange(std::span(&send, 1), {});
  });
  const Comm::Receive receive{1, {}};
  EXPECT_TRUE(world[0].exchange({}, std::span(&receive, 1)).ok());
  EXPECT_TRUE(other.get().ok());
}

// Eight processes exchange in a loop; one is killed. Whatever the others see first (the closed connection, another's
// report, a failed send), all seven name the same rank.
TEST(TcpComm, when_one_of_eight_processes_is_killed_all_others_name_it) {
  constexpr uint32_t kSize = 8;
  const uint16_t port = free_port();
  expect_a_killed_process_is_named(kSize, 5, [&](uint32_t rank, const auto& gather) {
    TcpSettings settings = settings_of(rank, kSize, port);
    settings.connect_timeout = minutes(2);
    const auto comms = TcpComm::connect(settings);
    if (comms) gather(*(*comms)[0]);
  });
}

TEST(ObservedComm, collectives_are_numbered_and_a_failed_one_is_not_left) {
  TcpWorld world(1, minutes(1));
  std::vector<std::string> trace;
  ObservedComm comm(world[0], {[&](uint64_t n) { trace.push_back("enter " + std::to_string(n)); },
                               [&] { trace.push_back("leave"); }});
  ASSERT_TRUE(comm.barrier().ok());
  comm.abort();
  EXPECT_FALSE(comm.barrier().ok());
  EXPECT_EQ(trace, (std::vector<std::string>{"enter 1", "leave", "enter 2"}));
}

}  // namespace
}  // namespace pitcrew::trainer
