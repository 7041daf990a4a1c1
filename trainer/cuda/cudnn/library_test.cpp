// Loading cuDNN, on a library of our own that only tells a version.
#include "trainer/cuda/cudnn/library.hpp"

#include <filesystem>

#include <gtest/gtest.h>
#include <unistd.h>

#include "lib/base/testing/environment_variable.hpp"
#include "trainer/kernels/attention_engine.hpp"

namespace pitcrew::trainer::cudnn {
namespace {

std::filesystem::path folder() { return std::filesystem::path(PITCREW_BIN_DIR).parent_path() / "lib/fake-cudnn"; }
std::string fake() { return (folder() / "libcudnn.so.9").string(); }

// cuDNN itself ends the process there. First of all tests: a compiler that was loaded once is found again.
TEST(CudnnLibrary, without_its_compiler_it_is_not_used) {
  const auto alone = std::filesystem::temp_directory_path() / ("pitcrew-cudnn-" + std::to_string(getpid()));
  std::filesystem::create_directory(alone);
  std::filesystem::copy_file(fake(), alone / "libcudnn.so.9");
  const auto loaded = load((alone / "libcudnn.so.9").string());
  std::filesystem::remove_all(alone);
  if (loaded.ok()) GTEST_SKIP() << "this machine has a libnvrtc.so.13 where the system looks";
  EXPECT_EQ(loaded.error().code, Code::kNotFound);
  EXPECT_NE(loaded.error().message.find("libnvrtc.so.13"), std::string::npos) << loaded.error().message;
}

TEST(CudnnLibrary, is_loaded_with_its_version) {
  const auto loaded = load(fake());
  ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  EXPECT_EQ(loaded->version, 91901u);
  EXPECT_EQ(cudnn_version_text(loaded->version), "9.19.1");
}

TEST(CudnnLibrary, the_environment_names_the_file) {
  const EnvironmentVariable setting("PITCREW_CUDNN_LIBRARY", fake());
  EXPECT_TRUE(load().ok());
}

TEST(CudnnLibrary, an_absent_one_is_said_with_the_remedy) {
  const EnvironmentVariable setting("PITCREW_CUDNN_LIBRARY", "/nowhere/libcudnn.so.9");
  const auto loaded = load();
  ASSERT_FALSE(loaded.ok());
  EXPECT_EQ(loaded.error().code, Code::kNotFound);
  EXPECT_NE(loaded.error().message.find("/nowhere/libcudnn.so.9"), std::string::npos) << loaded.error().message;
  EXPECT_NE(loaded.error().message.find("set attention: own"), std::string::npos) << loaded.error().message;
}

TEST(CudnnLibrary, an_old_one_is_refused_with_both_versions) {
  const EnvironmentVariable setting("PITCREW_FAKE_CUDNN_VERSION", "91301");
  const auto loaded = load(fake());
  ASSERT_FALSE(loaded.ok());
  EXPECT_EQ(loaded.error().code, Code::kUnsupported);
  EXPECT_NE(loaded.error().message.find("is version 9.13.1"), std::string::npos) << loaded.error().message;
  EXPECT_NE(loaded.error().message.find("9.18.0 or newer"), std::string::npos) << loaded.error().message;
}

TEST(CudnnLibrary, another_library_is_no_cudnn) {
  const auto loaded = load("libm.so.6");
  ASSERT_FALSE(loaded.ok());
  EXPECT_NE(loaded.error().message.find("is not cuDNN"), std::string::npos) << loaded.error().message;
}

TEST(CudnnWorkspace, is_counted_from_the_shape) {
  // GPT-2 1558M at B16 T1024: the scores' gradients are 16 x 25 x 1024 x 1024 x 2 bytes of it.
  const uint64_t plain = cudnn_workspace_bytes({16, 1024, 25, 25, 64});
  EXPECT_GT(plain, uint64_t{16} * 25 * 1024 * 1024 * 2);
  EXPECT_LT(plain, uint64_t{16} * 25 * 1024 * 1024 * 2 + (uint64_t{256} << 20));
  // Grouped queries keep the gradients of keys and values of every query head.
  EXPECT_EQ(cudnn_workspace_bytes({8, 2048, 32, 8, 64}) - cudnn_workspace_bytes({8, 2048, 32, 32, 64}),
            uint64_t{2} * 8 * 2048 * 32 * 64 * 2);
  // Lengths are taken in tiles.
  EXPECT_GT(cudnn_workspace_bytes({8, 1025, 32, 32, 64}) - cudnn_workspace_bytes({8, 1024, 32, 32, 64}),
            uint64_t{8} * 32 * 1024 * 128 * 2);
}

TEST(CudnnShape, other_head_widths_are_left_to_the_own_kernels) {
  EXPECT_TRUE(check_cudnn_shape({1, 8, 4, 4, 64}).ok());
  EXPECT_TRUE(check_cudnn_shape({1, 8, 4, 4, 128}).ok());
  const Status refused = check_cudnn_shape({1, 8, 4, 4, 80});
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.error().message.find("attention: own"), std::string::npos);
}

}  // namespace
}  // namespace pitcrew::trainer::cudnn
