// What can be said of cuDNN's graphs without a GPU, with the real library: they are described as cuDNN takes them, on
// every architecture, and what it refuses is told. Results are compared in attention_twin_test.cpp, on a GPU.
#include "trainer/cuda/cudnn/graphs.hpp"

#include <filesystem>

#include <cublasLt.h>
#include <gtest/gtest.h>

namespace pitcrew::trainer::cudnn {
namespace {

std::optional<Library> library(std::string& why_not) {
  const auto wheels = std::filesystem::path(PITCREW_CUDNN_FOLDER) / "libcudnn.so.9";
  auto loaded = load(std::filesystem::exists(wheels) ? wheels.string() : "");
  if (loaded) return *loaded;
  why_not = loaded.error().message;
  return std::nullopt;
}

TEST(CudnnGraphs, are_described_for_every_architecture_and_shape) {
  std::string why_not;
  const auto cudnn = library(why_not);
  if (!cudnn) GTEST_SKIP() << why_not;
  const AttentionShape shapes[] = {
      {16, 1024, 25, 25, 64}, {8, 2048, 32, 8, 64}, {1, 2048, 32, 8, 128}, {3, 100, 6, 2, 64}};
  for (const int architecture : {80, 90, 100}) {
    for (const AttentionShape& shape : shapes) {
      const auto graphs = Graphs::describe(*cudnn, shape, architecture);
      EXPECT_TRUE(graphs.ok()) << architecture << ", " << shape.length << " x " << shape.heads << "/" << shape.kv_heads
                               << " x " << shape.head_width << ": " << graphs.error().message;
    }
  }
}

TEST(CudnnGraphs, what_is_not_possible_is_an_error) {
  std::string why_not;
  const auto cudnn = library(why_not);
  if (!cudnn) GTEST_SKIP() << why_not;
  // Five query heads can't share three key heads.
  const auto uneven = Graphs::describe(*cudnn, {1, 128, 5, 3, 64}, 90);
  ASSERT_FALSE(uneven.ok());
  EXPECT_EQ(uneven.error().code, Code::kUnsupported);
  EXPECT_NE(uneven.error().message.find("cuDNN's attention forward"), std::string::npos) << uneven.error().message;
  EXPECT_FALSE(Graphs::describe(*cudnn, {1, 128, 4, 4, 80}, 90).ok());
}

TEST(CudnnGraphs, without_a_gpu_building_is_an_error_and_nothing_worse) {
  std::string why_not;
  const auto cudnn = library(why_not);
  if (!cudnn) GTEST_SKIP() << why_not;
  // cuDNN ends the process where cuBLASLt isn't there already; the trainer's library is linked with it, as this is by:
  ASSERT_GT(cublasLtGetVersion(), 0u);
  const auto handle = create_handle(*cudnn);
  if (handle) {
    destroy_handle(*handle);
    GTEST_SKIP() << "this machine has a GPU";
  }
  EXPECT_EQ(handle.error().code, Code::kUnsupported);
  EXPECT_NE(handle.error().message.find("CUDNN_STATUS"), std::string::npos) << handle.error().message;
  auto graphs = Graphs::describe(*cudnn, {2, 256, 4, 4, 64}, 90);
  ASSERT_TRUE(graphs.ok());
  // The operation graph is one that cuDNN knows; only engines are missing.
  const Status built = (*graphs)->build(nullptr);
  ASSERT_FALSE(built.ok());
  EXPECT_NE(built.error().message.find("No valid engine configs"), std::string::npos) << built.error().message;
}

}  // namespace
}  // namespace pitcrew::trainer::cudnn
