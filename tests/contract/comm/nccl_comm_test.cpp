#include "trainer/comm/nccl/nccl_comm.hpp"

#include <future>
#include <optional>

#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/contract/comm/killed_process.hpp"
#include "tests/contract/comm/nccl_world.hpp"
#include "trainer/comm/group_comm.hpp"

namespace pitcrew::trainer {
namespace {

using Clock = std::chrono::steady_clock;

// What each rank's body returned.
std::vector<Status> ends_of(NcclWorld& world, uint32_t size, const std::function<Status(NcclComm&)>& body) {
  std::vector<std::optional<Status>> ends(size);
  world.run([&](Comm& comm) { ends[comm.rank()] = body(static_cast<NcclComm&>(comm)); });
  std::vector<Status> all;
  for (auto& end : ends) all.push_back(std::move(*end));
  return all;
}

TEST(NcclLibrary, one_that_is_not_there_is_an_error_with_the_remedy) {
  const auto loaded = nccl::load("/nowhere/libnccl.so.2");
  ASSERT_FALSE(loaded.ok());
  EXPECT_EQ(loaded.error().code, Code::kNotFound);
  EXPECT_NE(loaded.error().message.find("set comm.backend: tcp"), std::string::npos) << loaded.error().message;
}

TEST(NcclLibrary, one_that_is_too_old_is_refused_with_its_version) {
  const NcclFaults faults("version 21705\n");
  const auto loaded = nccl::load(fake_nccl());
  ASSERT_FALSE(loaded.ok());
  EXPECT_EQ(loaded.error().code, Code::kUnsupported);
  EXPECT_NE(loaded.error().message.find("is version 2.17.5; install NCCL 2.18.1 or newer"), std::string::npos)
      << loaded.error().message;
}

TEST(NcclLibrary, another_library_is_not_taken_for_it) {
  const auto loaded = nccl::load("libc.so.6");
  ASSERT_FALSE(loaded.ok());
  EXPECT_NE(loaded.error().message.find("has no ncclGetVersion"), std::string::npos) << loaded.error().message;
}

TEST(NcclComm, a_rank_that_does_not_come_is_named_by_all_others_within_the_time_out) {
  const auto begun = Clock::now();
  NcclWorld world(3, milliseconds(300));
  std::vector<Status> ends(2);
  std::vector<std::thread> threads;
  for (uint32_t rank = 0; rank < 2; ++rank) threads.emplace_back([&, rank] { ends[rank] = world[rank].barrier(); });
  for (std::thread& thread : threads) thread.join();
  for (uint32_t rank = 0; rank < 2; ++rank) {
    ASSERT_FALSE(ends[rank].ok());
    EXPECT_NE(ends[rank].error().message.find("rank 2 did not come"), std::string::npos) << ends[rank].error().message;
    EXPECT_EQ(world[rank].lost_peer(), 2u);
  }
  EXPECT_LT(Clock::now() - begun, seconds(30));
}

TEST(NcclComm, a_rank_that_hangs_in_an_earlier_collective_is_named_as_being_behind) {
  const NcclFaults faults("rank 2 op 1 hang\n");
  NcclWorld world(3, milliseconds(300));
  const auto ends = ends_of(world, 3, [](NcclComm& comm) -> Status {
    // The first is between ranks 0 and 1 alone; rank 2 talks to itself, and hangs in it.
    std::byte out{7}, in{};
    const uint32_t other = comm.rank() == 2 ? 2 : 1 - comm.rank();
    const Comm::Send send{other, std::span(&out, 1)};
    const Comm::Receive receive{other, std::span(&in, 1)};
    PITCREW_TRY(comm.exchange(std::span(&send, 1), std::span(&receive, 1)));
    EXPECT_EQ(in, std::byte{7});
    return comm.barrier();
  });
  for (uint32_t rank = 0; rank < 3; ++rank) ASSERT_FALSE(ends[rank].ok()) << rank;
  for (uint32_t rank = 0; rank < 2; ++rank) {
    EXPECT_EQ(world[rank].lost_peer(), 2u) << ends[rank].error().message;
    EXPECT_NE(ends[rank].error().message.find("rank 2 is 1 collectives behind"), std::string::npos)
        << ends[rank].error().message;
  }
  EXPECT_FALSE(world[2].lost_peer());
}

TEST(NcclComm, a_collective_that_hangs_everywhere_ends_and_blames_nobody) {
  const NcclFaults faults("rank * op 1 hang\n");
  NcclWorld world(2, milliseconds(200));
  const auto ends = ends_of(world, 2, [](NcclComm& comm) { return comm.barrier(); });
  for (uint32_t rank = 0; rank < 2; ++rank) {
    ASSERT_FALSE(ends[rank].ok());
    EXPECT_FALSE(world[rank].lost_peer()) << ends[rank].error().message;
  }
}

TEST(NcclComm, an_asynchronous_error_ends_the_collective_on_all_ranks_long_before_the_time_out) {
  const NcclFaults faults("rank 1 op 2 async 6\n");
  NcclWorld world(3, minutes(5));
  const auto begun = Clock::now();
  const auto ends = ends_of(world, 3, [](NcclComm& comm) -> Status {
    PITCREW_TRY(comm.barrier());
    return comm.barrier();
  });
  EXPECT_LT(Clock::now() - begun, seconds(60));
  ASSERT_FALSE(ends[1].ok());
  EXPECT_EQ(ends[1].error().code, Code::kUnavailable);
  EXPECT_NE(ends[1].error().message.find("remote process exited"), std::string::npos) << ends[1].error().message;
  ASSERT_FALSE(ends[0].ok());
  EXPECT_NE(ends[0].error().message.find("gave up"), std::string::npos) << ends[0].error().message;
  // It was not that rank's own fault, as far as anybody knows.
  EXPECT_FALSE(world[0].lost_peer());
}

TEST(NcclComm, a_rank_whose_own_nccl_fails_is_named_by_the_others) {
  const NcclFaults faults("rank 1 op 1 error 3\n");
  NcclWorld world(3, minutes(5));
  const auto ends = ends_of(world, 3, [](NcclComm& comm) { return comm.barrier(); });
  ASSERT_FALSE(ends[1].ok());
  EXPECT_NE(ends[1].error().message.find("internal error"), std::string::npos) << ends[1].error().message;
  for (const uint32_t rank : {0u, 2u}) {
    ASSERT_FALSE(ends[rank].ok());
    EXPECT_EQ(world[rank].lost_peer(), 1u) << ends[rank].error().message;
    EXPECT_NE(ends[rank].error().message.find("rank 1 failed"), std::string::npos) << ends[rank].error().message;
  }
}

TEST(NcclComm, a_delay_is_no_failure) {
  const NcclFaults faults("rank 0 op 1 delay 100\n");
  NcclWorld world(2);
  for (const Status& end : ends_of(world, 2, [](NcclComm& comm) { return comm.barrier(); })) EXPECT_TRUE(end.ok());
}

// All errors of making one, by rank.
std::vector<std::string> failures_to_meet(uint32_t size, const NcclSettings& settings) {
  std::vector<std::string> messages(size);
  std::vector<std::thread> threads;
  const uint16_t port = free_port();
  for (uint32_t rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      auto made = NcclRank::meet(rank, size, port, settings);
      messages[rank] = made ? "made" : made.error().message;
    });
  }
  for (std::thread& thread : threads) thread.join();
  return messages;
}

TEST(NcclComm, a_meeting_that_never_completes_is_given_up_in_time) {
  const NcclFaults faults("rank 1 init hang\n");
  NcclSettings settings;
  settings.connect_timeout = milliseconds(200);
  for (const std::string& message : failures_to_meet(2, settings)) {
    EXPECT_NE(message.find("NCCL communicator of the world"), std::string::npos) << message;
    EXPECT_TRUE(message.find("not done within 200ms") != std::string::npos ||
                message.find("gave up") != std::string::npos)
        << message;
  }
}

TEST(NcclComm, a_meeting_can_be_cancelled) {
  const NcclFaults faults("rank * init hang\n");
  NcclSettings settings;
  settings.cancelled = [] { return true; };
  // One may be through before the other has come, and then that one finds nobody.
  const std::vector<std::string> messages = failures_to_meet(2, settings);
  for (const std::string& message : messages) EXPECT_NE(message, "made");
  EXPECT_NE((messages[0] + messages[1]).find("was aborted"), std::string::npos) << messages[0] << messages[1];
}

TEST(NcclComm, what_nccl_refuses_says_what_may_be_wrong) {
  const NcclFaults faults("rank * init error 5\n");
  for (const std::string& message : failures_to_meet(2, {}))
    EXPECT_NE(message.find("each rank needs a GPU of its own"), std::string::npos) << message;
}

TEST(NcclComm, an_abort_or_an_end_that_hangs_inside_nccl_is_left_behind) {
  const NcclFaults faults("rank 0 op 1 hang\nrank 0 abort hang 1500\nrank 1 finalize hang 1500\n");
  NcclWorld world(2, milliseconds(100), milliseconds(50));
  const Comm::Send send{0, {}};
  ASSERT_TRUE(world[1].exchange(std::span(&send, 1), {}).ok());
  const auto begun = Clock::now();
  ASSERT_FALSE(world[0].barrier().ok());
  world.destroy(0);
  world.destroy(1);
  EXPECT_LT(Clock::now() - begun, milliseconds(1400));
}

TEST(NcclComm, a_collective_starts_after_the_event_it_is_given) {
  NcclWorld world(2);
  world.run([&](Comm& below) {
    auto& comm = static_cast<NcclComm&>(below);
    const auto compute = world.device(comm.rank()).create_stream("compute");
    std::byte mine{0};
    std::vector<std::byte> all(2);
    std::promise<void> go;
    compute->call([&mine, &comm, ready = go.get_future().share()] {
      ready.wait();
      mine = static_cast<std::byte>(comm.rank() + 1);
    });
    comm.after(compute->record());
    auto gathered = std::async(std::launch::async, [&] { return comm.all_gather(std::span(&mine, 1), all); });
    go.set_value();
    ASSERT_TRUE(gathered.get().ok());
    EXPECT_EQ(all, (std::vector<std::byte>{std::byte{1}, std::byte{2}}));
  });
}

TEST(NcclComm, in_a_streams_order_nobody_waits_and_what_follows_sees_what_came) {
  NcclWorld world(3);
  world.run([&](Comm& below) {
    auto& comm = static_cast<NcclComm&>(below);
    const auto compute = world.device(comm.rank()).create_stream("compute");
    std::byte mine{0};
    std::vector<std::byte> all(3), seen(3), to_next(4, static_cast<std::byte>(10 + comm.rank())), from_last(4);
    std::promise<void> go;
    compute->call([&mine, &comm, ready = go.get_future().share()] {
      ready.wait();
      mine = static_cast<std::byte>(comm.rank() + 1);
    });
    ASSERT_TRUE(comm.all_gather(*compute, std::span(&mine, 1), all).ok());
    compute->copy(seen.data(), all.data(), all.size());
    const Comm::Send send{(comm.rank() + 1) % 3, to_next};
    const Comm::Receive receive{(comm.rank() + 2) % 3, from_last};
    ASSERT_TRUE(comm.exchange(*compute, std::span(&send, 1), std::span(&receive, 1)).ok());
    EXPECT_EQ(all, std::vector<std::byte>(3));  // all of it is enqueued, and nothing has happened
    go.set_value();
    compute->synchronize();
    EXPECT_EQ(seen, (std::vector{std::byte{1}, std::byte{2}, std::byte{3}}));
    EXPECT_EQ(from_last, std::vector<std::byte>(4, static_cast<std::byte>(10 + (comm.rank() + 2) % 3)));
    EXPECT_TRUE(comm.status().ok());
  });
}

TEST(NcclComm, in_a_streams_order_a_peer_that_does_not_come_ends_it_and_the_stream_goes_on) {
  NcclWorld world(2, milliseconds(300));
  const auto compute = world.device(0).create_stream("compute");
  std::byte mine{5};
  std::vector<std::byte> all(2);
  ASSERT_TRUE(world.nccl(0).all_gather(*compute, std::span(&mine, 1), all).ok());
  ASSERT_TRUE(world.nccl(0).all_gather(*compute, std::span(&mine, 1), all).ok());
  compute->synchronize();
  const Status end = world.nccl(0).status();
  ASSERT_FALSE(end.ok());
  EXPECT_EQ(end.error().code, Code::kDeadlineExceeded);
  EXPECT_NE(end.error().message.find("rank 1 did not come within 300ms"), std::string::npos) << end.error().message;
  EXPECT_EQ(world[0].lost_peer(), 1u);
  EXPECT_EQ(all[1], std::byte{0});
  EXPECT_FALSE(world.nccl(0).all_gather(*compute, std::span(&mine, 1), all).ok());
}

TEST(NcclComm, the_abort_of_one_communicator_is_that_of_all_of_the_rank) {
  NcclWorld world(2, minutes(5));
  // Another one of rank 0 over the same watch: a group of its own.
  MemoryGroup alone(1);
  const auto meeting = alone.take(0);
  auto other = NcclComm::create(*nccl::load(fake_nccl()), *meeting, world.device(0), &world.watch(0), {.members = {0}});
  ASSERT_TRUE(other.ok()) << other.error().message;
  auto waiting = std::async(std::launch::async, [&] { return world[0].barrier(); });
  (*other)->abort();
  const Status end = waiting.get();
  ASSERT_FALSE(end.ok());
  EXPECT_EQ(end.error().code, Code::kCancelled);
  EXPECT_FALSE(world[0].lost_peer());
}

TEST(NcclComm, sums_are_nccls_where_it_is_asked_for_them) {
  NcclWorld world(4);
  world.run([](Comm& below) {
    auto& comm = static_cast<NcclComm&>(below);
    std::vector<float> values(1000), mine(250);
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i * (comm.rank() + 1));
    ASSERT_TRUE(comm.reduce_scatter_sum(values, mine).ok());
    ASSERT_TRUE(comm.all_reduce_sum(values).ok());
    for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(values[i], static_cast<float>(i * 10)) << i;
    for (size_t i = 0; i < mine.size(); ++i) ASSERT_EQ(mine[i], values[comm.rank() * 250 + i]) << i;
  });
}

// Groups of a 2 × 2 grid beside the world's communicator, each with its own, over one watch.
TEST(NcclComm, a_group_names_the_worlds_rank) {
  const uint16_t port = free_port();
  std::vector<std::thread> threads;
  for (uint32_t rank = 0; rank < 4; ++rank) {
    threads.emplace_back([&, rank] {
      NcclSettings settings;
      settings.group = "pair of " + std::to_string(rank % 2);
      settings.members = {rank % 2, rank % 2 + 2};
      settings.collective_timeout = milliseconds(200);
      TcpSettings tcp;
      tcp.rank = rank;
      tcp.size = 4;
      tcp.master_port = port;
      auto channels = TcpComm::connect(tcp, 2);
      ASSERT_TRUE(channels.ok());
      PeerWatch watch(std::move((*channels)[1]), milliseconds(200));
      CpuDevice device({.threads = 1});
      GroupComm pair(*(*channels)[0], settings.members);
      auto comm = NcclComm::create(*nccl::load(fake_nccl()), pair, device, &watch, settings);
      ASSERT_TRUE(comm.ok()) << comm.error().message;
      if (rank != 3) {
        const Status end = (*comm)->barrier();
        // Ranks 0 and 2 are whole; 1 waits for 3, which does nothing.
        EXPECT_EQ(end.ok(), rank != 1) << rank;
        if (rank == 1) {
          EXPECT_EQ((*comm)->lost_peer(), 3u) << end.error().message;
        }
      }
      // Nobody leaves before rank 1 is through.
      std::byte done{};
      if (rank == 1) {
        for (const uint32_t peer : {0u, 2u, 3u}) {
          const Comm::Send send{peer, std::span(&done, 1)};
          ASSERT_TRUE((*channels)[0]->exchange(std::span(&send, 1), {}).ok());
        }
      } else {
        const Comm::Receive receive{1, std::span(&done, 1)};
        ASSERT_TRUE((*channels)[0]->exchange({}, std::span(&receive, 1)).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Four processes gather in a loop; one is killed. NCCL, as between GPUs of a node, notices nothing: the others spin.
TEST(NcclComm, when_a_process_is_killed_all_others_name_it_at_once) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "a forked child may not start threads under the thread sanitizer";
#endif
  constexpr uint32_t kSize = 4;
  const uint16_t port = free_port();
  expect_a_killed_process_is_named(kSize, 2, [&](uint32_t rank, const auto& gather) {
    const auto made = NcclRank::meet(rank, kSize, port, {}, seconds(20));
    if (made) gather(*made->comm);
  });
}

}  // namespace
}  // namespace pitcrew::trainer
