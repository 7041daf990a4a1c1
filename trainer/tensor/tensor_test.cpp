#include <cmath>

#include <gtest/gtest.h>

#include "trainer/device/cpu_device.hpp"
#include "trainer/tensor/arena.hpp"
#include "trainer/tensor/philox.hpp"
#include "trainer/tensor/portable_math.hpp"

namespace pitcrew::trainer {
namespace {

TEST(Arena, slices_are_aligned_and_found_by_name) {
  ArenaLayout layout;
  layout.add("a", DType::kF32, {3, 5});
  const size_t b = layout.add("b", DType::kF64, {7});
  EXPECT_EQ(layout[b].offset, 64u);
  EXPECT_EQ(layout.bytes(), 128u);
  EXPECT_EQ(layout.find("a")->elements, 15u);
  EXPECT_EQ(layout.find("c"), nullptr);
  CpuDevice device({});
  const auto arena = Arena::create(device, "test", layout);
  ASSERT_TRUE(arena.ok());
  EXPECT_EQ(reinterpret_cast<std::byte*>(arena->at<double>(b)), arena->data() + 64);
  EXPECT_EQ(arena->at<double>(b)[6], 0.0);
}

// The known answers of Random123 1.14's kat_vectors.
TEST(Philox, gives_the_published_words) {
  EXPECT_EQ(philox({0, 0}, {0, 0, 0, 0}), (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({0xa4093822, 0x299f31d0}, {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}),
            (std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, normal_numbers_have_mean_zero_and_deviation_one) {
  const TensorRandom random(7, "layers.0.attn.qkv.weight");
  double sum = 0, squares = 0;
  constexpr int kCount = 100000;
  for (int i = 0; i < kCount; ++i) {
    const double x = random.normal(static_cast<uint64_t>(i));
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / kCount, 0, 0.02);
  EXPECT_NEAR(squares / kCount, 1, 0.02);
  EXPECT_NE(random.normal(0), TensorRandom(7, "layers.1.attn.qkv.weight").normal(0));
  EXPECT_NE(random.normal(0), TensorRandom(8, "layers.0.attn.qkv.weight").normal(0));
}

TEST(PortableMath, functions_agree_with_the_library) {
  const TensorRandom random(1, "x");
  for (uint64_t i = 0; i < 10000; ++i) {
    const double x = std::ldexp(random.uniform(2 * i) + 1e-6, static_cast<int>(i % 40) - 30);
    EXPECT_NEAR(portable_log(x), std::log(x), 1e-14 * (1 + std::abs(std::log(x)))) << x;
    EXPECT_NEAR(portable_exp(x / 30) / std::exp(x / 30), 1, 1e-14) << x;
    const double angle = random.uniform(2 * i + 1) * (i % 2 ? 7 : 5000);
    EXPECT_NEAR(portable_sincos(angle).sine, std::sin(angle), 1e-12) << angle;
    EXPECT_NEAR(portable_sincos(angle).cosine, std::cos(angle), 1e-12) << angle;
  }
}

}  // namespace
}  // namespace pitcrew::trainer
