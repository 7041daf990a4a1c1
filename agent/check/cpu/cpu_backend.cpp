#include "agent/check/cpu/cpu_backend.hpp"

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstring>
#include <thread>

#include "lib/base/digest.hpp"
#include "lib/base/random.hpp"

namespace pitcrew::check {
namespace {

using Steady = std::chrono::steady_clock;

double seconds_since(Steady::time_point begin) { return std::chrono::duration<double>(Steady::now() - begin).count(); }

// Every bit of a word differs from its neighbours' and, in the next pass, from itself: odd passes are complements.
uint64_t pattern(uint64_t seed, uint64_t pass, uint64_t place) {
  const uint64_t word = mix64(mix64(seed + pass / 2) ^ place);
  return pass % 2 == 0 ? word : ~word;
}

std::vector<float> matrix(size_t side, uint64_t seed) {
  std::vector<float> values(side * side);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(mix64(seed ^ (i * 2 + 1)) >> 40) * 0x1p-23f - 1.0f;
  }
  return values;
}

// In one fixed order, so that the same inputs give the same bits on every thread.
void multiply(const std::vector<float>& a, const std::vector<float>& b, std::vector<float>& c, size_t side) {
  std::fill(c.begin(), c.end(), 0.0f);
  for (size_t row = 0; row < side; ++row) {
    for (size_t inner = 0; inner < side; ++inner) {
      const float factor = a[row * side + inner];
      const float* from = &b[inner * side];
      float* to = &c[row * side];
      for (size_t column = 0; column < side; ++column) to[column] += factor * from[column];
    }
  }
}

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(CpuSettings settings) : settings_(std::move(settings)) {
    for (size_t i = 0; i < settings_.devices; ++i) {
      devices_.push_back({"cpu-" + std::to_string(i), "processor thread", settings_.memory_bytes});
    }
  }

  std::string name() const override { return "cpu"; }
  const std::vector<Device>& devices() const override { return devices_; }

  Result<MemoryOutcome> memory(size_t device, double share, Duration time, uint64_t seed) override {
    const auto words = static_cast<size_t>(static_cast<double>(settings_.memory_bytes) * share / 8);
    std::vector<uint64_t> buffer(std::max<size_t>(words, 2));
    MemoryOutcome outcome;
    const size_t half = buffer.size() / 2;
    outcome.bytes = buffer.size() * 8;
    const auto begin = Steady::now();
    double copying = 0;
    do {
      for (size_t i = 0; i < buffer.size(); ++i) buffer[i] = pattern(seed, outcome.passes, i);
      if (settings_.bend_memory) settings_.bend_memory(device, buffer);
      for (size_t i = 0; i < buffer.size(); ++i) {
        const uint64_t flipped = buffer[i] ^ pattern(seed, outcome.passes, i);
        if (flipped == 0) continue;
        if (outcome.wrong_words++ == 0) outcome.first_wrong = i * 8;
        outcome.flipped_bits |= flipped;
      }
      const auto copy_begin = Steady::now();
      std::memcpy(buffer.data(), buffer.data() + half, half * 8);
      copying += seconds_since(copy_begin);
      ++outcome.passes;
    } while (seconds_since(begin) < to_seconds(time));
    const double copied = 2 * 8 * static_cast<double>(half) * static_cast<double>(outcome.passes);
    outcome.copy_bandwidth = copied / std::max(copying, 1e-9);
    return outcome;
  }

  Result<BurnOutcome> burn(size_t device, Duration time, uint64_t seed) override {
    const size_t side = settings_.matrix;
    const std::vector<float> a = matrix(side, seed), b = matrix(side, seed + 1);
    std::vector<float> c(side * side);
    BurnOutcome outcome;
    const auto begin = Steady::now();
    double multiplying = 0;
    while (outcome.digests.size() < 2 || seconds_since(begin) < to_seconds(time)) {
      const auto product_begin = Steady::now();
      multiply(a, b, c, side);
      multiplying += seconds_since(product_begin);
      if (settings_.bend_product) settings_.bend_product(device, outcome.digests.size(), c);
      outcome.digests.push_back(xxh3(c.data(), c.size() * sizeof(float)));
    }
    const double each = 2.0 * static_cast<double>(side) * static_cast<double>(side) * static_cast<double>(side);
    outcome.flops = each * static_cast<double>(outcome.digests.size()) / std::max(multiplying, 1e-9);
    return outcome;
  }

  Result<HostOutcome> host(size_t, Duration time, uint64_t seed) override {
    std::vector<uint64_t> host(settings_.memory_bytes / 16), device(host.size()), back(host.size());
    for (size_t i = 0; i < host.size(); ++i) host[i] = pattern(seed, 0, i);
    HostOutcome outcome;
    const size_t bytes = host.size() * 8;
    const auto begin = Steady::now();
    double to = 0, from = 0, copies = 0;
    do {
      const auto first = Steady::now();
      std::memcpy(device.data(), host.data(), bytes);
      const auto second = Steady::now();
      std::memcpy(back.data(), device.data(), bytes);
      to += std::chrono::duration<double>(second - first).count();
      from += seconds_since(second);
      ++copies;
      for (size_t i = 0; i < host.size(); ++i) outcome.wrong_bytes += host[i] != back[i] ? 8 : 0;
    } while (seconds_since(begin) < to_seconds(time));
    outcome.to_device = copies * static_cast<double>(bytes) / std::max(to, 1e-9);
    outcome.from_device = copies * static_cast<double>(bytes) / std::max(from, 1e-9);
    return outcome;
  }

  Result<CollectiveOutcome> all_reduce(Duration time, uint64_t seed) override {
    const size_t ranks = devices_.size();
    if (ranks < 2) return Error(Code::kUnsupported, "an all-reduce needs two devices");
    const size_t count = std::max<size_t>(ranks, settings_.memory_bytes / 16 / sizeof(float));
    // Small whole numbers: their sum is exact in whatever order it is taken.
    const auto value = [&](size_t rank, size_t i) { return static_cast<float>(mix64(seed + rank * 7919 + i) % 64); };
    std::vector<std::vector<float>> data(ranks, std::vector<float>(count));
    std::vector<uint64_t> wrong(ranks, 0);
    std::barrier barrier(static_cast<std::ptrdiff_t>(ranks));
    std::vector<double> took(ranks, 0);
    size_t rounds = 0;
    bool again = true;
    const auto begin = Steady::now();
    const auto work = [&](size_t rank) {
      const size_t first = count * rank / ranks, last = count * (rank + 1) / ranks;
      while (again) {
        for (size_t i = 0; i < count; ++i) data[rank][i] = value(rank, i);
        barrier.arrive_and_wait();
        const auto start = Steady::now();
        // Each sums its own part of all, then takes the others' parts from them.
        for (size_t other = 0; other < ranks; ++other) {
          if (other == rank) continue;
          for (size_t i = first; i < last; ++i) data[rank][i] += data[other][i];
        }
        barrier.arrive_and_wait();
        for (size_t other = 0; other < ranks; ++other) {
          if (other == rank) continue;
          const size_t from = count * other / ranks, to = count * (other + 1) / ranks;
          std::copy(data[other].begin() + static_cast<std::ptrdiff_t>(from),
                    data[other].begin() + static_cast<std::ptrdiff_t>(to),
                    data[rank].begin() + static_cast<std::ptrdiff_t>(from));
        }
        took[rank] += seconds_since(start);
        barrier.arrive_and_wait();
        for (size_t i = 0; i < count; ++i) {
          float sum = 0;
          for (size_t other = 0; other < ranks; ++other) sum += value(other, i);
          wrong[rank] += data[rank][i] != sum;
        }
        barrier.arrive_and_wait();
        if (rank == 0) {
          ++rounds;
          again = seconds_since(begin) < to_seconds(time);
        }
        barrier.arrive_and_wait();
      }
    };
    std::vector<std::thread> threads;
    for (size_t rank = 0; rank < ranks; ++rank) threads.emplace_back(work, rank);
    for (std::thread& thread : threads) thread.join();
    CollectiveOutcome outcome;
    for (const uint64_t elements : wrong) outcome.wrong_elements += elements;
    const double bytes = static_cast<double>(count * sizeof(float)) * static_cast<double>(rounds);
    const double factor = 2.0 * static_cast<double>(ranks - 1) / static_cast<double>(ranks);
    outcome.bus_bandwidth = factor * bytes / std::max(*std::max_element(took.begin(), took.end()), 1e-9);
    return outcome;
  }

 private:
  const CpuSettings settings_;
  std::vector<Device> devices_;
};

}  // namespace

Result<std::unique_ptr<Backend>> make_cpu_backend(CpuSettings settings) {
  if (settings.devices < 1 || settings.devices > 64 || settings.memory_bytes < (1u << 20) || settings.matrix < 8) {
    return Error(Code::kInvalidArgument,
                 "threads in place of GPUs: 1 to 64 of them, with at least 1 MiB and an 8 by 8 product each");
  }
  return std::unique_ptr<Backend>(std::make_unique<CpuBackend>(std::move(settings)));
}

}  // namespace pitcrew::check
