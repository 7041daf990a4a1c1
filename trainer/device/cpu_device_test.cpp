#include "trainer/device/cpu_device.hpp"

#include <cmath>
#include <cstring>
#include <latch>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

namespace pitcrew::trainer {
namespace {

TEST(CpuDevice, work_of_a_stream_runs_in_order) {
  CpuDevice device({});
  auto stream = device.create_stream("compute");
  std::vector<int> order;
  for (int i = 0; i < 100; ++i) stream->call([&order, i] { order.push_back(i); });
  stream->synchronize();
  std::vector<int> expected(100);
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(order, expected);
}

TEST(CpuDevice, streams_run_beside_each_other) {
  CpuDevice device({});
  auto one = device.create_stream("one");
  auto other = device.create_stream("other");
  std::latch met(2);  // passes only if both are under way at once
  one->call([&] { met.arrive_and_wait(); });
  other->call([&] { met.arrive_and_wait(); });
  one->synchronize();
  other->synchronize();
}

TEST(CpuDevice, an_event_orders_two_streams) {
  CpuDevice device({});
  auto compute = device.create_stream("compute");
  auto copies = device.create_stream("copies");
  std::latch go(1);
  std::vector<int> source(1000, 1), target(1000, 0);
  compute->call([&] { go.wait(); });
  compute->call([&] { std::fill(source.begin(), source.end(), 2); });
  copies->wait(compute->record());
  copies->copy(target.data(), source.data(), source.size() * sizeof(int));
  const auto copied = copies->record();
  EXPECT_FALSE(copied->reached());
  go.count_down();
  copied->wait();
  EXPECT_TRUE(copied->reached());
  EXPECT_EQ(target, source);
}

TEST(CpuDevice, the_optimizer_waits_for_a_delayed_copy_and_the_copy_holds_the_old_values) {
  std::latch release(1);
  CpuDevice device({.before_work = [&](const std::string& stream) {
    if (stream == "copies") release.wait();
  }});
  auto compute = device.create_stream("compute");
  auto copies = device.create_stream("copies");
  auto state = std::move(*device.allocate("state", 64 * sizeof(float)));
  auto snapshot = std::move(*device.allocate_host("snapshot", 64 * sizeof(float)));
  std::fill_n(state.as<float>(), 64, 1.0f);
  copies->wait(compute->record());
  copies->copy(snapshot.data(), state.data(), state.bytes());
  bool computed = false;
  compute->call([&] { computed = true; });  // the next step's forward goes on meanwhile
  compute->synchronize();
  EXPECT_TRUE(computed);
  compute->wait(copies->record());
  compute->call([&] { std::fill_n(state.as<float>(), 64, 2.0f); });
  release.count_down();
  compute->synchronize();
  EXPECT_EQ(snapshot.as<float>()[63], 1.0f);
  EXPECT_EQ(state.as<float>()[63], 2.0f);
}

TEST(CpuDevice, a_released_buffer_reads_as_nan_and_a_late_write_is_named) {
  CpuDevice device({.poison = true});
  float* kept;
  {
    auto buffer = std::move(*device.allocate("snapshot-2", 16 * sizeof(float)));
    kept = buffer.as<float>();
    kept[3] = 5;
  }
  EXPECT_TRUE(std::isnan(kept[3]));
  EXPECT_TRUE(device.damaged_buffers().empty());
  kept[3] = 7;
  EXPECT_EQ(device.damaged_buffers(), std::vector<std::string>{"snapshot-2"});
}

TEST(CpuDevice, an_impossible_allocation_names_the_buffer) {
  CpuDevice device({});
  const auto buffer = device.allocate("activations", size_t{1} << 62);
  ASSERT_FALSE(buffer.ok());
  EXPECT_EQ(buffer.error().code, Code::kResourceExhausted);
  EXPECT_NE(buffer.error().message.find("activations"), std::string::npos);
}

TEST(WorkerPool, every_part_runs_once_and_workers_do_not_overlap) {
  for (const unsigned threads : {1u, 2u, 3u}) {
    WorkerPool pool(threads);
    for (int round = 0; round < 200; ++round) {
      const size_t parts = static_cast<size_t>(round % 7);
      std::vector<int> hits(parts, 0);
      std::vector<int> per_worker(threads, 0);  // unsynchronized on purpose: the thread sanitizer watches
      pool.run(parts, [&](size_t part, unsigned worker) {
        ++hits[part];
        ++per_worker[worker];
      });
      EXPECT_EQ(hits, std::vector<int>(parts, 1));
      EXPECT_EQ(std::accumulate(per_worker.begin(), per_worker.end(), size_t{0}), parts);
    }
  }
}

TEST(WorkerPool, two_callers_take_turns) {
  WorkerPool pool(2);
  long total = 0;  // only ever touched inside run()
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 2; ++caller) {
    callers.emplace_back([&] {
      for (int round = 0; round < 100; ++round) pool.run(1, [&](size_t, unsigned) { ++total; });
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(total, 200);
}

}  // namespace
}  // namespace pitcrew::trainer
