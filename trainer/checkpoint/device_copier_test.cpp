#include "trainer/checkpoint/device_copier.hpp"

#include <gtest/gtest.h>

#include "trainer/device/cpu_device.hpp"

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

}  // namespace
}  // namespace pitcrew::trainer
