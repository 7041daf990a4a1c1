#include "trainer/checkpoint/device_copier.hpp"

#include <condition_variable>
#include <cstring>
#include <mutex>

#include <gtest/gtest.h>

#include "lib/base/digest.hpp"
#include "lib/base/random.hpp"
#include "trainer/checkpoint/slices.hpp"
#include "trainer/device/cpu_device.hpp"
#include "trainer/kernels/cpu_kernels.hpp"

namespace pitcrew::trainer {
namespace {

TEST(DeviceCopier, copies_what_compute_had_written_before_and_holds_what_it_writes_after) {
  CpuDevice device({});
  const auto compute = device.create_stream("compute");
  constexpr size_t kWords = 1 << 18, kTensors = 8;
  std::vector<std::vector<uint32_t>> tensors(kTensors, std::vector<uint32_t>(kWords)), host = tensors;
  DeviceCopier copier(device, *compute);
  for (uint32_t step = 1; step <= 20; ++step) {
    for (auto& tensor : tensors) compute->call([&tensor, step] { std::fill(tensor.begin(), tensor.end(), step); });
    copier.begin();
    std::vector<Copier::Ticket> tickets;
    for (size_t t = 0; t < kTensors; ++t) {
      tickets.push_back(copier.copy_out(reinterpret_cast<std::byte*>(host[t].data()),
                                        reinterpret_cast<const std::byte*>(tensors[t].data()), kWords * 4));
    }
    // The next step's optimizer, tensor by tensor, enqueued at once.
    for (size_t t = 0; t < kTensors; ++t) {
      copier.hold_compute(tickets[t]);
      compute->call([&tensor = tensors[t]] { std::fill(tensor.begin(), tensor.end(), ~0u); });
    }
    copier.wait(tickets.back());
    for (const auto& copy : host) EXPECT_EQ(copy, std::vector<uint32_t>(kWords, step));
    copier.wait(1);  // long done
  }
  compute->synchronize();
}

// Lets through only as many pieces of work of the stream "checkpoint" as the test grants.
class Gate {
 public:
  void pass(const std::string& stream) {
    if (stream != "checkpoint") return;
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return granted_ > 0; });
    --granted_;
  }
  void grant(size_t works) {
    const std::lock_guard lock(mutex_);
    granted_ += works;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t granted_ = 0;
};

// The CPU as a device whose memory the host may not touch, as a GPU's.
class HiddenDevice final : public CpuDevice {
 public:
  using CpuDevice::CpuDevice;
  bool host_memory() const override { return false; }
};

class Counter {
 public:
  void add() {
    const std::lock_guard lock(mutex_);
    ++value_;
    changed_.notify_all();
  }
  bool reaches(size_t value) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(30), [&] { return value_ >= value; }) && value_ == value;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t value_ = 0;
};

// A state of equal tensors, some of them floats in two halves, with its copier and the optimizer that changes it.
class Stage {
 public:
  static constexpr size_t kTensors = 8, kElements = kChunkBytes / 4;
  static bool in_halves(size_t t) { return t % 4 == 2; }

  explicit Stage(size_t bounced) : device_({.before_work = [this](const std::string& stream) { gate.pass(stream); }}) {
    compute = device_.create_stream("compute");
    kernels_ = create_cpu_kernels<BF16>(device_);
    SnapshotPlan plan = plan_snapshot(kTensors * kChunkBytes, kTensors, 1, 0, true);
    plan.bounce = bounced * kChunkBytes;
    copier = std::move(
        *DeviceCopier::create(device_, *compute,
                              {[this](Stream& stream, const DigestList& op) { kernels_->enqueue(stream, op); },
                               [this](Stream& stream, const SplitMasters& op) { kernels_->enqueue(stream, op); },
                               [this](Stream& stream, const JoinMasters& op) { kernels_->enqueue(stream, op); }},
                              plan));
    for (size_t t = 0; t < kTensors; ++t) {
      Random random(t);
      auto& values = expected.emplace_back(kElements);
      for (float& value : values) value = static_cast<float>(random.uniform()) - 0.5f;
      tensors.push_back(std::move(*device_.allocate("tensor", kChunkBytes)));
      host.push_back(std::move(*copier->allocate_host(kChunkBytes)));
      write(t, values);
    }
    digests.resize(kTensors);
  }
  void write(size_t t, const std::vector<float>& values) {
    if (!in_halves(t)) {
      std::memcpy(tensors[t].data(), values.data(), kChunkBytes);
      return;
    }
    for (size_t i = 0; i < kElements; ++i) {
      const MasterHalves halves = split_master(values[i]);
      tensors[t].as<BF16>()[i] = halves.weight;
      tensors[t].as<uint16_t>()[kElements + i] = halves.remainder;
    }
  }
  std::vector<Copier::Piece> pieces() {
    std::vector<Copier::Piece> pieces;
    for (size_t t = 0; t < kTensors; ++t) {
      const std::byte* remainders = in_halves(t) ? tensors[t].data() + kChunkBytes / 2 : nullptr;
      pieces.push_back({host[t].data(), tensors[t].data(), remainders, kChunkBytes, &digests[t]});
    }
    return pieces;
  }
  // Works of the copy stream: of the snapshot's digests, and of the copy of one tensor.
  static constexpr size_t kDigestWorks = 3;
  static size_t works(size_t t) { return in_halves(t) ? 2 : 1; }
  size_t works_until(size_t heads, size_t bounced) const {
    size_t sum = kDigestWorks + bounced;
    for (size_t t = 0; t < heads; ++t) sum += works(t);
    return sum;
  }

  Gate gate;

 private:
  HiddenDevice device_;
  std::unique_ptr<Kernels<BF16>> kernels_;

 public:
  std::unique_ptr<Stream> compute;
  std::unique_ptr<DeviceCopier> copier;
  std::vector<std::vector<float>> expected;
  std::vector<Buffer> tensors, host;
  std::vector<uint64_t> digests;
};

// stall = max(0, what is copied to the host before the optimizer may write - what forward and backward hide).
TEST(Snapshot, the_optimizer_waits_for_the_head_of_each_tensor_alone_and_never_for_the_bounced_tail) {
  constexpr size_t kTensors = Stage::kTensors;
  for (const size_t bounced : {0u, 3u, 8u}) {
    for (const size_t hidden : {0u, 2u, 8u}) {  // copies that end while forward and backward compute
      SCOPED_TRACE(std::to_string(bounced) + " bounced, " + std::to_string(hidden) + " hidden");
      Stage stage(bounced);
      const size_t heads = kTensors - bounced;
      const auto pieces = stage.pieces();
      const auto tickets = stage.copier->snapshot(pieces);
      Counter written;
      stage.compute->call([] {});  // forward and backward
      for (size_t t = 0; t < kTensors; ++t) {
        stage.copier->hold_compute(tickets[t].free);
        stage.compute->call([&, t] {
          std::memset(stage.tensors[t].data(), 0xff, kChunkBytes);
          written.add();
        });
      }
      const auto written_after = [&](size_t copied) { return copied < heads ? copied : kTensors; };
      size_t copied = std::min(hidden, heads), stalled = 0;
      stage.gate.grant(stage.works_until(copied, bounced));
      EXPECT_TRUE(written.reaches(written_after(copied)));
      for (; copied < heads; ++stalled) {
        stage.gate.grant(Stage::works(copied++));
        EXPECT_TRUE(written.reaches(written_after(copied)));
      }
      EXPECT_EQ(stalled, heads > hidden ? heads - hidden : 0);
      // The optimizer is through; the tail comes from the bounce buffer, whole.
      stage.gate.grant(1000);
      stage.copier->wait(tickets.back().copied);
      for (size_t t = 0; t < kTensors; ++t) {
        EXPECT_EQ(std::memcmp(stage.host[t].data(), stage.expected[t].data(), kChunkBytes), 0) << t;
        EXPECT_EQ(stage.digests[t], xxh3(stage.expected[t].data(), kChunkBytes)) << t;
      }
      stage.compute->synchronize();
    }
  }
}

TEST(Snapshot, a_bounce_buffer_that_ends_within_a_tensor_takes_its_end) {
  Stage stage(3);
  stage.gate.grant(100000);
  std::vector<std::byte> device(5 * kChunkBytes / 2), host(device.size());
  Random random(1);
  for (std::byte& byte : device) byte = static_cast<std::byte>(random.below(256));
  std::vector<uint64_t> digests(3 + Stage::kTensors);
  auto pieces = stage.pieces();
  pieces.resize(3);
  pieces[1] = {host.data(), device.data(), nullptr, device.size(), digests.data()};
  // From behind: one whole, then of the second what begins at a chunk and fits.
  for (int round = 0; round < 3; ++round) {
    std::fill(host.begin(), host.end(), std::byte{});
    const auto tickets = stage.copier->snapshot(pieces);
    EXPECT_LT(tickets[2].free, tickets[0].free);
    EXPECT_LT(tickets[0].free, tickets[1].free);
    stage.copier->wait(tickets[1].copied);
    EXPECT_EQ(host, device);
    for (size_t c = 0; c < 3; ++c)
      EXPECT_EQ(digests[c], xxh3(device.data() + c * kChunkBytes, c < 2 ? kChunkBytes : kChunkBytes / 2));
  }
}

TEST(Snapshot, floats_in_two_halves_come_back_into_them) {
  Stage stage(0);
  stage.gate.grant(100000);
  const std::vector<float>& values = stage.expected[1];
  auto target = stage.tensors[2].data();
  stage.copier->begin_copy_in(target, target + kChunkBytes / 2, reinterpret_cast<const std::byte*>(values.data()),
                              kChunkBytes);
  stage.copier->wait(stage.copier->copied_in());
  for (size_t i = 0; i < Stage::kElements; ++i) {
    const MasterHalves halves{stage.tensors[2].as<BF16>()[i], stage.tensors[2].as<uint16_t>()[Stage::kElements + i]};
    ASSERT_EQ(join_master(halves), values[i]);
  }
}

TEST(Snapshot, what_a_slice_needs_is_known_before) {
  const SnapshotPlan plan = plan_snapshot(uint64_t{16} << 30, 400, 8, 0.25, true);
  EXPECT_EQ(plan.bounce, uint64_t{512} << 20);
  EXPECT_EQ(plan.staging, uint64_t{32} << 20);
  EXPECT_EQ(plan.digests, 2049 + 400u);
  EXPECT_EQ(plan_snapshot(uint64_t{16} << 30, 400, 8, 0, false).bounce, 0u);
}

}  // namespace
}  // namespace pitcrew::trainer
