#pragma once

// Each of the GPU's kernels beside its CPU twin on random shapes, odd ones included. With a GPU
// (pitcrew-cuda-twin-test), or with the kernels' threads as fibers of the CPU (pitcrew_trainer_cuda_emulated_test). A
// failing seed is printed; PITCREW_TEST_SEED runs it again.
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/base/random.hpp"
#include "trainer/cuda/twin_backend.hpp"
#include "trainer/device/cpu_device.hpp"
#include "trainer/kernels/cpu_kernels.hpp"

namespace pitcrew::trainer {

// One rounding to BF16 is 2⁻⁹ of a value at most; norm-wise over many it is 2⁻⁹/√3. Both sides round inputs and outputs
// alike, so results differ by a rounding here and there: at most about 2⁻⁹.
inline constexpr double kOneRounding = 2e-3;
// Float sums in another order.
inline constexpr double kFloatSums = 2e-5;
// Attention also rounds the weights, and their gradients, between its two products.
inline constexpr double kAttention = 6e-3;

// Memory that both sides have alike, and what each made of it.
template <typename T>
class Twin {
 public:
  Twin(TwinBackend& backend, Stream& stream, std::vector<T> values)
      : backend_(backend), stream_(stream), cpu_(std::move(values)) {
    auto buffer = backend.device->allocate("twin", std::max<size_t>(1, cpu_.size()) * sizeof(T));
    EXPECT_TRUE(buffer.ok());
    device_ = std::move(*buffer);
    stream_.copy(device_.data(), cpu_.data(), cpu_.size() * sizeof(T));
    stream_.synchronize();
  }
  // Another of the same values as the CPU's.
  Twin copy() const { return Twin(backend_, stream_, cpu_); }
  T* cpu() { return cpu_.data(); }
  T* device() { return device_.as<T>(); }
  const std::vector<T>& expected() const { return cpu_; }
  std::vector<T> found() const {
    std::vector<T> values(cpu_.size());
    stream_.copy(values.data(), device_.data(), values.size() * sizeof(T));
    stream_.synchronize();
    return values;
  }
  bool same_bits() const { return std::memcmp(found().data(), cpu_.data(), cpu_.size() * sizeof(T)) == 0; }
  // The norm of the difference, of the expected values' norm.
  double distance() const {
    double difference = 0, norm = 0;
    const std::vector<T> values = found();
    for (size_t i = 0; i < values.size(); ++i) {
      const double expected = static_cast<float>(cpu_[i]), value = static_cast<float>(values[i]);
      difference += (value - expected) * (value - expected);
      norm += expected * expected;
    }
    return std::sqrt(difference / (norm + 1e-30));
  }

 private:
  TwinBackend& backend_;
  Stream& stream_;
  std::vector<T> cpu_;
  Buffer device_;
};

class CudaTwin : public testing::Test {
 protected:
  void SetUp() override {
    if (!backend.why_not.empty()) GTEST_SKIP() << backend.why_not;
    const char* asked = std::getenv("PITCREW_TEST_SEED");
    seed = asked != nullptr ? std::strtoull(asked, nullptr, 10) : 20;
    random = Random(seed);
    stream = backend.device->create_stream("compute");
    cpu_stream = cpu.create_stream("compute");
  }
  int rounds() const { return backend.slow ? 6 : 40; }
  // Up to `limit`, where emulation is slow up to less; every third time a multiple of 8.
  size_t size(size_t limit, size_t slow_limit) {
    const size_t any = 1 + random.below(backend.slow ? slow_limit : limit);
    return random.below(3) == 0 ? (any + 7) / 8 * 8 : any;
  }
  Twin<BF16> bf16(size_t count, double scale = 1) {
    std::vector<BF16> values(count);
    for (BF16& value : values) value = BF16(static_cast<float>(scale * (2 * random.uniform() - 1)));
    return {backend, *stream, std::move(values)};
  }
  Twin<float> floats(size_t count, double scale = 1, double middle = 0) {
    std::vector<float> values(count);
    for (float& value : values) value = static_cast<float>(middle + scale * (2 * random.uniform() - 1));
    return {backend, *stream, std::move(values)};
  }
  Twin<int32_t> tokens(size_t count, size_t vocab) {
    std::vector<int32_t> values(count);
    for (int32_t& value : values) value = static_cast<int32_t>(random.below(vocab));
    return {backend, *stream, std::move(values)};
  }
  // The same operation on both sides.
  template <typename Op>
  void run(const Op& on_cpu, const Op& on_device) {
    cpu_kernels->enqueue(*cpu_stream, on_cpu);
    backend.kernels->enqueue(*stream, on_device);
    cpu_stream->synchronize();
    stream->synchronize();
  }

  TwinBackend& backend = twin_backend();
  uint64_t seed = 0;
  Random random{0};
  CpuDevice cpu{{.threads = 2}};
  std::unique_ptr<Kernels<BF16>> cpu_kernels = create_cpu_kernels<BF16>(cpu);
  std::unique_ptr<Stream> stream, cpu_stream;
};

}  // namespace pitcrew::trainer
