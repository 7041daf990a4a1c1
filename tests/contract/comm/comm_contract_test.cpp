#include <atomic>
#include <cstring>
#include <future>
#include <mutex>

#include <gtest/gtest.h>

#include "lib/base/random.hpp"
#include "tests/contract/comm/comm_world.hpp"
#include "tests/contract/comm/nccl_world.hpp"
#include "trainer/comm/group_comm.hpp"

namespace pitcrew::trainer {
namespace {

using Bytes = std::vector<std::byte>;

Bytes pattern(uint64_t seed, size_t size) {
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(mix64(seed * 1'000'003 + i));
  return bytes;
}

enum class Backend { kMemory, kTcp, kNccl };

class CommContract : public testing::TestWithParam<Backend> {
 protected:
  std::unique_ptr<CommWorld> world(uint32_t size, Duration timeout = minutes(5)) {
    switch (GetParam()) {
      case Backend::kMemory:
        return std::make_unique<MemoryWorld>(size, timeout);
      case Backend::kTcp:
        return std::make_unique<TcpWorld>(size, timeout);
      case Backend::kNccl:
        return std::make_unique<NcclWorld>(size, timeout);
    }
    return nullptr;
  }
};

std::string name_of(const testing::TestParamInfo<Backend>& info) {
  constexpr const char* kNames[] = {"Memory", "Tcp", "FakeNccl"};
  return kNames[static_cast<int>(info.param)];
}

INSTANTIATE_TEST_SUITE_P(Backends, CommContract, testing::Values(Backend::kMemory, Backend::kTcp, Backend::kNccl),
                         name_of);

TEST_P(CommContract, ranks_know_who_they_are) {
  auto ranks = world(3);
  for (uint32_t rank = 0; rank < 3; ++rank) {
    EXPECT_EQ((*ranks)[rank].rank(), rank);
    EXPECT_EQ((*ranks)[rank].size(), 3u);
    EXPECT_FALSE((*ranks)[rank].lost_peer());
  }
}

TEST_P(CommContract, a_barrier_lets_nobody_through_before_all_have_come) {
  for (const uint32_t size : {1u, 2u, 5u, 8u}) {
    std::atomic<uint32_t> arrived = 0;
    world(size)->run([&](Comm& comm) {
      for (uint32_t round = 1; round <= 3; ++round) {
        arrived += 1;
        ASSERT_TRUE(comm.barrier().ok());
        EXPECT_GE(arrived.load(), round * size);
        ASSERT_TRUE(comm.barrier().ok());
      }
    });
  }
}

TEST_P(CommContract, broadcast_gives_everybody_the_roots_bytes) {
  for (const uint32_t size : {1u, 2u, 3u, 8u}) {
    world(size)->run([&](Comm& comm) {
      for (uint32_t root = 0; root < size; ++root) {
        Bytes data = pattern(comm.rank(), 1000);
        ASSERT_TRUE(comm.broadcast(data, root).ok());
        EXPECT_EQ(data, pattern(root, 1000)) << "size " << size << " root " << root;
      }
    });
  }
}

TEST_P(CommContract, all_gather_orders_by_rank) {
  for (const uint32_t size : {1u, 2u, 3u, 8u}) {
    world(size)->run([&](Comm& comm) {
      for (const size_t bytes : {size_t{0}, size_t{1}, size_t{4097}}) {
        Bytes all(bytes * size);
        ASSERT_TRUE(comm.all_gather(pattern(comm.rank(), bytes), all).ok());
        for (uint32_t rank = 0; rank < size; ++rank) {
          EXPECT_EQ(Bytes(all.begin() + static_cast<ptrdiff_t>(rank * bytes),
                          all.begin() + static_cast<ptrdiff_t>((rank + 1) * bytes)),
                    pattern(rank, bytes));
        }
      }
    });
  }
}

TEST_P(CommContract, messages_between_two_ranks_keep_their_order_and_may_be_empty) {
  world(3)->run([](Comm& comm) {
    const size_t sizes[] = {10, 0, 70'000, 0, 3};
    std::vector<Bytes> mine, theirs;
    std::vector<Comm::Send> sends;
    std::vector<Comm::Receive> receives;
    for (uint32_t peer = 0; peer < 3; ++peer) {
      for (size_t i = 0; i < std::size(sizes); ++i) {
        mine.push_back(pattern(comm.rank() * 100 + peer * 10 + i, sizes[i]));
        theirs.emplace_back(sizes[i]);
      }
    }
    for (uint32_t peer = 0; peer < 3; ++peer) {  // to itself, too
      for (size_t i = 0; i < std::size(sizes); ++i) {
        sends.push_back({peer, mine[peer * std::size(sizes) + i]});
        receives.push_back({peer, theirs[peer * std::size(sizes) + i]});
      }
    }
    ASSERT_TRUE(comm.exchange(sends, receives).ok());
    for (uint32_t peer = 0; peer < 3; ++peer) {
      for (size_t i = 0; i < std::size(sizes); ++i) {
        EXPECT_EQ(theirs[peer * std::size(sizes) + i], pattern(peer * 100 + comm.rank() * 10 + i, sizes[i]));
      }
    }
  });
}

TEST_P(CommContract, an_empty_message_is_received_by_a_later_call) {
  world(2)->run([](Comm& comm) {
    if (comm.rank() == 0) {
      const Comm::Send sends[] = {{1, {}}, {1, {}}, {1, {}}};
      ASSERT_TRUE(comm.exchange(sends, {}).ok());
    } else {
      for (int i = 0; i < 3; ++i) {
        const Comm::Receive receive{0, {}};
        ASSERT_TRUE(comm.exchange({}, std::span(&receive, 1)).ok());
      }
    }
    ASSERT_TRUE(comm.barrier().ok());
  });
}

// Far more than all socket buffers together, everybody to everybody: whoever sent first and received after would hang.
TEST_P(CommContract, big_exchanges_at_once_do_not_deadlock) {
  constexpr size_t kSize = 6 << 20;
  world(4)->run([](Comm& comm) {
    const Bytes mine = pattern(comm.rank(), kSize);
    std::vector<Bytes> theirs(4, Bytes(kSize));
    std::vector<Comm::Send> sends;
    std::vector<Comm::Receive> receives;
    for (uint32_t peer = 0; peer < 4; ++peer) {
      if (peer == comm.rank()) continue;
      sends.push_back({peer, mine});
      receives.push_back({peer, theirs[peer]});
    }
    ASSERT_TRUE(comm.exchange(sends, receives).ok());
    for (uint32_t peer = 0; peer < 4; ++peer) {
      if (peer != comm.rank()) {
        EXPECT_TRUE(theirs[peer] == pattern(peer, kSize)) << "from " << peer;
      }
    }
  });
}

TEST_P(CommContract, random_traffic_arrives_whole) {
  const uint64_t seed = 20260301;
  RecordProperty("seed", static_cast<int>(seed));
  world(5)->run([&](Comm& comm) {
    Random plan(seed);  // the same on every rank
    for (int round = 0; round < 30; ++round) {
      std::vector<Bytes> buffers;
      std::vector<std::pair<uint32_t, size_t>> wanted;  // seed of the pattern, index in buffers
      std::vector<Comm::Send> sends;
      std::vector<Comm::Receive> receives;
      buffers.reserve(40);
      for (uint32_t message = 0; message < 20; ++message) {
        const auto from = static_cast<uint32_t>(plan.below(5));
        const auto to = static_cast<uint32_t>(plan.below(5));
        const size_t size = plan.chance(0.2) ? 0 : plan.below(30'000);
        const uint32_t mark = static_cast<uint32_t>(round) * 100 + message;
        if (from == comm.rank()) sends.push_back({to, buffers.emplace_back(pattern(mark, size))});
        if (to == comm.rank()) {
          wanted.emplace_back(mark, buffers.size());
          receives.push_back({from, buffers.emplace_back(size)});
        }
      }
      ASSERT_TRUE(comm.exchange(sends, receives).ok()) << "seed " << seed;
      for (const auto& [mark, index] : wanted)
        EXPECT_EQ(buffers[index], pattern(mark, buffers[index].size())) << "seed " << seed;
    }
  });
}

TEST_P(CommContract, abort_from_another_thread_ends_a_waiting_call_and_all_later_ones) {
  auto ranks = world(2);
  auto waiting = std::async(std::launch::async, [&] { return (*ranks)[0].barrier(); });
  (*ranks)[0].abort();
  const Status ended = waiting.get();
  ASSERT_FALSE(ended.ok());
  EXPECT_EQ(ended.error().code, Code::kCancelled);
  const Status later = (*ranks)[0].barrier();
  ASSERT_FALSE(later.ok());
  EXPECT_EQ(later.error().code, Code::kCancelled);
  EXPECT_FALSE((*ranks)[0].lost_peer());
}

TEST_P(CommContract, a_peer_that_does_not_come_is_named_after_the_time_out) {
  auto ranks = world(2, milliseconds(50));
  Bytes byte(1);
  const Comm::Receive receive{1, byte};
  const Status late = (*ranks)[0].exchange({}, std::span(&receive, 1));
  ASSERT_FALSE(late.ok());
  EXPECT_EQ(late.error().code, Code::kDeadlineExceeded);
  EXPECT_NE(late.error().message.find("rank 1 did not come"), std::string::npos) << late.error().message;
  EXPECT_EQ((*ranks)[0].lost_peer(), 1u);
  // Dead is dead: the next call does not wait again.
  EXPECT_EQ((*ranks)[0].barrier().error().code, Code::kDeadlineExceeded);
}

TEST_P(CommContract, a_peer_that_leaves_while_it_is_waited_for_is_named) {
  auto ranks = world(3);
  std::mutex mutex;
  std::vector<Status> ends;
  std::thread waiting([&] {
    Bytes byte(1);
    const Comm::Receive receive{2, byte};
    Status end = (*ranks)[0].exchange({}, std::span(&receive, 1));
    std::lock_guard lock(mutex);
    ends.push_back(std::move(end));
  });
  ranks->destroy(2);
  waiting.join();
  ASSERT_FALSE(ends[0].ok());
  EXPECT_EQ(ends[0].error().code, Code::kUnavailable);
  EXPECT_NE(ends[0].error().message.find("rank 2"), std::string::npos) << ends[0].error().message;
  EXPECT_EQ((*ranks)[0].lost_peer(), 2u);
}

TEST_P(CommContract, ranks_that_disagree_about_sizes_are_told_so) {
  if (GetParam() == Backend::kNccl) GTEST_SKIP() << "NCCL's messages do not carry their size";
  auto ranks = world(2);
  Bytes sent(8), room(4);
  const Comm::Send send{1, sent};
  ASSERT_TRUE((*ranks)[0].exchange(std::span(&send, 1), {}).ok());
  const Comm::Receive receive{0, room};
  const Status end = (*ranks)[1].exchange({}, std::span(&receive, 1));
  ASSERT_FALSE(end.ok());
  EXPECT_NE(end.error().message.find("8 bytes where 4"), std::string::npos) << end.error().message;
}

TEST_P(CommContract, peers_that_do_not_exist_are_refused) {
  auto ranks = world(2);
  const Comm::Send send{7, {}};
  EXPECT_EQ((*ranks)[0].exchange(std::span(&send, 1), {}).error().code, Code::kInvalidArgument);
  EXPECT_EQ((*ranks)[1].broadcast({}, 9).error().code, Code::kInvalidArgument);
}

TEST_P(CommContract, groups_of_one_channel_talk_at_the_same_time) {
  world(6)->run([](Comm& channel) {
    const uint32_t side = channel.rank() % 2;
    GroupComm group(channel, {side, side + 2, side + 4});
    ASSERT_EQ(group.size(), 3u);
    ASSERT_EQ(group.rank(), channel.rank() / 2);
    for (uint32_t round = 0; round < 20; ++round) {
      Bytes all(3 * 1000);
      ASSERT_TRUE(group.all_gather(pattern(channel.rank() + round, 1000), all).ok());
      for (uint32_t i = 0; i < 3; ++i) {
        EXPECT_EQ(Bytes(all.begin() + i * 1000, all.begin() + (i + 1) * 1000), pattern(side + 2 * i + round, 1000));
      }
      Bytes data = pattern(channel.rank(), 70'000);
      ASSERT_TRUE(group.broadcast(data, 1).ok());
      EXPECT_EQ(data, pattern(side + 2, 70'000));
    }
    ASSERT_TRUE(channel.barrier().ok());
  });
}

TEST_P(CommContract, a_group_names_the_worlds_rank_that_it_lost) {
  auto ranks = world(4);
  GroupComm group((*ranks)[1], {1, 3});
  Status end;
  std::thread waiting([&] { end = group.barrier(); });
  ranks->destroy(3);
  waiting.join();
  ASSERT_FALSE(end.ok());
  EXPECT_NE(end.error().message.find("rank 3"), std::string::npos) << end.error().message;
  EXPECT_EQ(group.lost_peer(), 3u);
}

TEST_P(CommContract, a_group_refuses_peers_that_are_not_in_it) {
  auto ranks = world(4);
  GroupComm group((*ranks)[1], {1, 3});
  const Comm::Send send{2, {}};
  EXPECT_EQ(group.exchange(std::span(&send, 1), {}).error().code, Code::kInvalidArgument);
}

}  // namespace
}  // namespace pitcrew::trainer
