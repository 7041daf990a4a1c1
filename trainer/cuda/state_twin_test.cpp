// What works on gradients and on the state as a whole: sums, norms, AdamW, masters in halves, digests.
#include <bit>
#include <cmath>
#include <cstring>

#include "lib/base/digest.hpp"
#include "trainer/cuda/twin_fixture.hpp"

namespace pitcrew::trainer {
namespace {

TEST_F(CudaTwin, sums_norms_and_adamw_agree) {
  for (int round = 0; round < rounds(); ++round) {
    const size_t elements = size(3'000'000, 70'000);
    auto params = floats(elements), m = floats(elements, 0.1), v = floats(elements, 0.1, 0.1), g = floats(elements, 3);
    auto weights = bf16(elements);
    Twin<double> sum(backend, *stream, {0.0}), squares(backend, *stream, {0.0});
    Twin<GradientSummary> summary(backend, *stream, {GradientSummary{}});
    auto other = floats(elements);
    run(Add<float>{elements, g.cpu(), other.cpu()}, Add<float>{elements, g.device(), other.device()});
    EXPECT_TRUE(g.same_bits());
    run(Sum<float>{elements, g.cpu(), sum.cpu()}, Sum<float>{elements, g.device(), sum.device()});
    EXPECT_NEAR(sum.found()[0], sum.expected()[0], 1e-9 * static_cast<double>(elements));
    run(SquareSum<float>{elements, g.cpu(), squares.cpu()}, SquareSum<float>{elements, g.device(), squares.device()});
    EXPECT_NEAR(squares.found()[0], squares.expected()[0], 1e-9 * squares.expected()[0]);
    run(SquareSum<float>{elements, g.cpu(), squares.cpu(), true},
        SquareSum<float>{elements, g.device(), squares.device(), true});
    EXPECT_NEAR(squares.found()[0], squares.expected()[0], 1e-9 * squares.expected()[0]);
    run(Summarize{squares.cpu(), 10, 1, summary.cpu()}, Summarize{squares.device(), 10, 1, summary.device()});
    EXPECT_EQ(summary.found()[0].finite, 1u);
    EXPECT_NEAR(summary.found()[0].scale, summary.expected()[0].scale, 1e-12);
    Twin<BF16> half(backend, *stream, std::vector<BF16>(elements));
    Twin<uint16_t> remainders(backend, *stream, std::vector<uint16_t>(elements));
    auto half_m = m.copy(), half_v = v.copy(), whole = floats(elements);
    run(SplitMasters{elements, params.cpu(), half.cpu(), remainders.cpu()},
        SplitMasters{elements, params.device(), half.device(), remainders.device()});
    EXPECT_TRUE(half.same_bits() && remainders.same_bits());
    const auto op = [&](bool device) {
      const auto of = [&](auto& twin) { return device ? twin.device() : twin.cpu(); };
      return AdamW<BF16>{elements, of(params), of(m), of(v), of(g), of(weights),        of(summary),
                         0.01,     0.9,        0.95,  1e-8,  0.1,   uint64_t(round + 1)};
    };
    run(op(false), op(true));
    EXPECT_LT(params.distance(), 1e-6) << "seed " << seed;
    EXPECT_LT(m.distance(), 1e-6) << "seed " << seed;
    EXPECT_LT(v.distance(), 1e-6) << "seed " << seed;
    EXPECT_LT(weights.distance(), 1e-4) << "seed " << seed;
    const auto halves = [&](bool device) {
      const auto of = [&](auto& twin) { return device ? twin.device() : twin.cpu(); };
      AdamW<BF16> same = op(device);
      same.params = nullptr, same.weights = of(half), same.remainders = of(remainders);
      same.m = of(half_m), same.v = of(half_v);
      return same;
    };
    run(halves(false), halves(true));
    run(JoinMasters{elements, half.cpu(), remainders.cpu(), whole.cpu()},
        JoinMasters{elements, half.device(), remainders.device(), whole.device()});
    // Both forms of masters give the same bits, on either device.
    EXPECT_EQ(whole.found(), params.found()) << "seed " << seed;
    EXPECT_EQ(whole.expected(), params.expected()) << "seed " << seed;
    EXPECT_EQ(half.found(), weights.found());
    EXPECT_EQ(half_m.found(), m.found());
    EXPECT_EQ(half_v.found(), v.found());
    run(Cast<BF16>{elements, other.cpu(), weights.cpu()}, Cast<BF16>{elements, other.device(), weights.device()});
    EXPECT_TRUE(weights.same_bits());
  }
}

TEST_F(CudaTwin, every_kind_of_master_comes_back_from_its_halves) {
  std::vector<uint32_t> words;
  // Every low half that rounding turns on, under upper halves of both parities, signs, exponents and specials.
  for (const uint32_t upper :
       {0x0000u, 0x0001u, 0x3f80u, 0x3f81u, 0x7f7fu, 0x7f80u, 0x8000u, 0xbf80u, 0xff7fu, 0xff80u})
    for (const uint32_t lower : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu})
      if (upper % 0x8000 < 0x7f80 || lower == 0) words.push_back(upper << 16 | lower);
  while (words.size() % 8 != 0) words.push_back(0x40490fdbu);
  std::vector<float> masters(words.size());
  std::memcpy(masters.data(), words.data(), words.size() * 4);
  const size_t n = masters.size();
  Twin<float> from(backend, *stream, masters), back(backend, *stream, std::vector<float>(n));
  Twin<BF16> weights(backend, *stream, std::vector<BF16>(n));
  Twin<uint16_t> remainders(backend, *stream, std::vector<uint16_t>(n));
  run(SplitMasters{n, from.cpu(), weights.cpu(), remainders.cpu()},
      SplitMasters{n, from.device(), weights.device(), remainders.device()});
  run(JoinMasters{n, weights.cpu(), remainders.cpu(), back.cpu()},
      JoinMasters{n, weights.device(), remainders.device(), back.device()});
  EXPECT_TRUE(weights.same_bits() && remainders.same_bits() && back.same_bits());
  EXPECT_EQ(std::memcmp(back.cpu(), masters.data(), n * 4), 0);
  for (const uint32_t nan : {0x7f800001u, 0x7fffffffu, 0xffffffffu}) {
    const MasterHalves halves = split_master(std::bit_cast<float>(nan));
    EXPECT_TRUE(std::isnan(static_cast<float>(halves.weight)));
    EXPECT_TRUE(std::isnan(join_master(halves)));
  }
}

TEST_F(CudaTwin, nothing_changes_where_the_gradient_is_not_finite) {
  auto params = floats(1000), m = floats(1000), v = floats(1000), g = floats(1000);
  auto weights = bf16(1000);
  Twin<double> squares(backend, *stream, {NAN});
  Twin<GradientSummary> summary(backend, *stream, {GradientSummary{}});
  backend.kernels->enqueue(*stream, Summarize{squares.device(), 10, 1, summary.device()});
  backend.kernels->enqueue(*stream, AdamW<BF16>{1000, params.device(), m.device(), v.device(), g.device(),
                                                weights.device(), summary.device(), 0.01, 0.9, 0.95, 1e-8, 0.1, 1});
  stream->synchronize();
  EXPECT_EQ(summary.found()[0].finite, 0u);
  // Nor where its norm is above what is believed.
  Twin<double> large(backend, *stream, {400.0});
  backend.kernels->enqueue(*stream, Summarize{large.device(), 10, 1, summary.device(), 1.9});
  backend.kernels->enqueue(*stream, AdamW<BF16>{1000, params.device(), m.device(), v.device(), g.device(),
                                                weights.device(), summary.device(), 0.01, 0.9, 0.95, 1e-8, 0.1, 1});
  stream->synchronize();
  EXPECT_EQ(summary.found()[0].finite, 0u);
  EXPECT_TRUE(params.same_bits() && m.same_bits() && v.same_bits() && weights.same_bits());
}

TEST_F(CudaTwin, digests_are_those_of_the_cpu_for_every_length) {
  std::vector<size_t> sizes;
  for (size_t i = 1; i <= 300; ++i) sizes.push_back(i);
  for (const size_t more : {511, 512, 1023, 1024, 1025, 1088, 2047, 2048, 2049, 4096, 65536, 65600})
    sizes.push_back(more);
  for (int round = 0; round < rounds(); ++round) sizes.push_back(1 + random.below(100'000));
  Twin<uint8_t> data(backend, *stream, [&] {
    std::vector<uint8_t> bytes(100'000);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.below(256));
    return bytes;
  }());
  for (const size_t bytes : sizes) {
    for (const size_t chunk : {size_t{1} << 20, size_t{4096}}) {
      const size_t count = Digest{.bytes = bytes, .chunk = chunk}.count();
      Twin<uint64_t> digests(backend, *stream, std::vector<uint64_t>(count));
      run(Digest{data.cpu(), bytes, chunk, digests.cpu()}, Digest{data.device(), bytes, chunk, digests.device()});
      ASSERT_TRUE(digests.same_bits()) << bytes << " bytes in chunks of " << chunk;
      EXPECT_EQ(digests.expected()[0], xxh3(data.cpu(), std::min(chunk, bytes)));
    }
  }
}

TEST_F(CudaTwin, digests_of_a_list_are_those_of_each_range_whole_or_in_halves) {
  const size_t most = DigestList::kChunk / 4 + 3000;
  auto masters = floats(most);
  Twin<BF16> weights(backend, *stream, std::vector<BF16>(most));
  Twin<uint16_t> remainders(backend, *stream, std::vector<uint16_t>(most));
  run(SplitMasters{most, masters.cpu(), weights.cpu(), remainders.cpu()},
      SplitMasters{most, masters.device(), weights.device(), remainders.device()});
  std::vector<size_t> elements = {1, 2, 4, 5, 15, 32, 33, 60, 61, 64, 300, 1024, 16000, most};
  std::vector<DigestRange> on_cpu, on_device;
  std::vector<uint64_t> expected;
  for (const size_t count : elements) {
    for (const bool halves : {false, true}) {
      const uint64_t first = expected.size();
      const size_t from = halves ? 16 * random.below(2) : 0;
      const size_t n = std::min(count, most - from);
      on_cpu.push_back({weights.cpu() + from, remainders.cpu() + from, n * 4, first});
      on_device.push_back({weights.device() + from, remainders.device() + from, n * 4, first});
      if (!halves) on_cpu.back() = {masters.cpu(), nullptr, n * 4, first};
      if (!halves) on_device.back() = {masters.device(), nullptr, n * 4, first};
      const auto* bytes = reinterpret_cast<const std::byte*>(masters.cpu() + from);
      for (size_t at = 0; at < n * 4; at += DigestList::kChunk)
        expected.push_back(xxh3(bytes + at, std::min(DigestList::kChunk, n * 4 - at)));
    }
  }
  Twin<DigestRange> table(backend, *stream, on_device);
  Twin<uint64_t> digests(backend, *stream, std::vector<uint64_t>(expected.size()));
  run(DigestList{on_cpu.data(), on_cpu.size(), expected.size(), digests.cpu()},
      DigestList{table.device(), on_device.size(), expected.size(), digests.device()});
  EXPECT_EQ(digests.expected(), expected);
  EXPECT_EQ(digests.found(), expected) << "seed " << seed;
}

}  // namespace
}  // namespace pitcrew::trainer
