// What can be said of the GPU library without a GPU: it loads, it says why there is no GPU, and the compiler's reports
// on its kernels are as they should be.
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>

#include <gtest/gtest.h>

#include "trainer/cuda/library.hpp"

namespace pitcrew::trainer::cuda {
namespace {

TEST(CudaLibrary, opens_a_gpu_or_says_what_is_missing) {
  const auto opened = open({});
  if (opened) {
    EXPECT_FALSE(opened->name.empty());
    EXPECT_GT(opened->total_bytes, opened->free_bytes);
    return;
  }
  // The library was found and loaded: what is missing is behind it.
  EXPECT_EQ(opened.error().message.find("libpitcrew_cuda.so"), std::string::npos) << opened.error().message;
  EXPECT_EQ(opened.error().message.find("open GPU 0: "), 0u) << opened.error().message;
  EXPECT_TRUE(opened.error().code == Code::kNotFound || opened.error().code == Code::kUnsupported)
      << opened.error().message;
}

TEST(CudaLibrary, a_model_without_kernels_is_refused_with_the_remedy) {
  ModelConfig model{.layers = 1, .width = 60, .heads = 4, .kv_heads = 4, .mlp = 64, .vocab = 64, .context = 8};
  const Status refused = problems(model);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.error().message.find("multiples of 8 up to 128"), std::string::npos);
  model.width = 64;
  EXPECT_TRUE(problems(model).ok());
}

struct Report {
  std::string kernel, architecture;
  int registers = 0, stack = 0, spilled = 0;
};

std::vector<Report> reports() {
  std::vector<Report> all;
  const std::regex compiling("Compiling entry function '(\\S+)' for '(sm_\\w+)'");
  const std::regex stack("(\\d+) bytes stack frame, (\\d+) bytes spill stores, (\\d+) bytes spill loads");
  const std::regex used("Used (\\d+) registers");
  for (const auto& entry : std::filesystem::directory_iterator(PITCREW_PTXAS_FOLDER)) {
    if (!entry.path().string().ends_with(".ptxas.txt")) continue;
    std::ifstream file(entry.path());
    for (std::string line; std::getline(file, line);) {
      std::smatch match;
      if (std::regex_search(line, match, compiling)) all.push_back({match[1], match[2], 0, 0, 0});
      if (all.empty()) continue;
      if (std::regex_search(line, match, stack)) {
        all.back().stack = std::stoi(match[1]);
        all.back().spilled = std::stoi(match[2]) + std::stoi(match[3]);
      }
      if (std::regex_search(line, match, used)) all.back().registers = std::stoi(match[1]);
    }
  }
  return all;
}

TEST(CudaKernels, none_spills_registers_on_any_architecture) {
  const std::vector<Report> all = reports();
  std::set<std::string> architectures;
  for (const Report& report : all) {
    architectures.insert(report.architecture);
    EXPECT_EQ(report.spilled, 0) << report.kernel << " for " << report.architecture << ": " << report.spilled
                                 << " bytes are spilled at " << report.registers << " registers";
    EXPECT_GT(report.registers, 0) << report.kernel;
  }
  std::stringstream wanted(PITCREW_CUDA_ARCHITECTURES);
  for (std::string architecture; std::getline(wanted, architecture, ',');) {
    EXPECT_TRUE(architectures.contains("sm_" + architecture)) << "no report for sm_" << architecture;
  }
  EXPECT_GE(all.size(), 30u * architectures.size());
}

}  // namespace
}  // namespace pitcrew::trainer::cuda
