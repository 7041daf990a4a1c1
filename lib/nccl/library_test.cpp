// Loading NCCL, on the library that plays it for tests.
#include "lib/nccl/library.hpp"

#include <gtest/gtest.h>

#include "lib/base/testing/environment_variable.hpp"
#include "lib/base/testing/temp_folder.hpp"

namespace pitcrew::nccl {
namespace {

std::string fake() { return PITCREW_BIN_DIR "/../lib/fake-nccl/libnccl.so.2"; }

TEST(NcclLibrary, all_that_it_has_is_found_and_all_that_is_demanded_is_there) {
  const auto api = load({.oldest = version_code(2, 18, 1), .functions = {"ncclGetVersion", "ncclAllReduce"}}, fake());
  ASSERT_TRUE(api.ok()) << api.error().message;
  EXPECT_NE((*api)->AllReduce, nullptr);
  EXPECT_NE((*api)->CommInitRankConfig, nullptr);
  EXPECT_GE((*api)->version, version_code(2, 18, 1));
  // Nobody demanded it of this one.
  EXPECT_EQ((*api)->CommInitAll, nullptr);
}

TEST(NcclLibrary, what_it_lacks_of_the_demanded_is_named_with_the_remedy) {
  const auto api = load({.functions = {"ncclAllReduce", "ncclCommInitAll"}}, fake());
  ASSERT_FALSE(api.ok());
  EXPECT_EQ(api.error().code, Code::kNotFound);
  EXPECT_EQ(
      api.error().message,
      "load NCCL: " + fake() +
          " has no ncclCommInitAll; install NCCL (the wheel nvidia-nccl-cu13, or the distribution's libnccl2), or "
          "name its file in PITCREW_NCCL_LIBRARY");
}

TEST(NcclLibrary, an_old_one_will_do_for_whoever_demands_no_version) {
  const TempFolder folder;
  const EnvironmentVariable rules("PITCREW_FAKE_NCCL", folder.write("rules", "version 20805\n"));
  const auto any = load({.functions = {"ncclAllReduce"}}, fake());
  ASSERT_TRUE(any.ok()) << any.error().message;
  EXPECT_EQ(version_text((*any)->version), "2.8.5");
  // That it is old is said before what it lacks.
  const auto newer =
      load({.oldest = version_code(2, 18, 1), .functions = {"ncclCommInitAll"}, .otherwise = "do without"}, fake());
  ASSERT_FALSE(newer.ok());
  EXPECT_EQ(newer.error().code, Code::kUnsupported);
  EXPECT_NE(newer.error().message.find("is version 2.8.5; install NCCL 2.18.1 or newer (the wheel"), std::string::npos)
      << newer.error().message;
  EXPECT_NE(newer.error().message.find("in PITCREW_NCCL_LIBRARY, or do without"), std::string::npos)
      << newer.error().message;
}

TEST(NcclLibrary, the_environment_names_the_file) {
  const EnvironmentVariable named("PITCREW_NCCL_LIBRARY", fake());
  EXPECT_TRUE(load({.functions = {"ncclAllReduce"}}).ok());
  const auto asked = load({.functions = {"ncclAllReduce"}}, "/nowhere/libnccl.so.2");
  ASSERT_FALSE(asked.ok());
  EXPECT_NE(asked.error().message.find("/nowhere/libnccl.so.2"), std::string::npos) << asked.error().message;
}

}  // namespace
}  // namespace pitcrew::nccl
