#include "lib/base/dynamic_library.hpp"

#include <cstdlib>
#include <filesystem>

#include <gtest/gtest.h>

#include "lib/base/testing/temp_folder.hpp"

namespace pitcrew {
namespace {

TEST(DynamicLibrary, functions_are_found_by_name) {
  const auto library = DynamicLibrary::load({.what = "mathematics", .places = {"libm.so.6"}, .remedy = "learn some"});
  ASSERT_TRUE(library.ok()) << library.error().message;
  EXPECT_EQ(library->place(), "libm.so.6");
  double (*cube_root)(double) = nullptr;
  ASSERT_TRUE(library->find(cube_root, "cbrt"));
  EXPECT_DOUBLE_EQ(cube_root(27), 3);
  EXPECT_NE(library->file_of("cbrt").find("libm.so.6"), std::string::npos) << library->file_of("cbrt");
  EXPECT_FALSE(library->find(cube_root, "cubeRoot"));
  EXPECT_EQ(cube_root, nullptr);
}

TEST(DynamicLibrary, an_absent_one_is_said_with_what_was_tried_and_the_remedy) {
  const auto library =
      DynamicLibrary::load({.what = "cuDNN", .places = {"/nowhere/one.so", "/nowhere/two.so"}, .remedy = "install it"});
  ASSERT_FALSE(library.ok());
  EXPECT_EQ(library.error().code, Code::kNotFound);
  EXPECT_EQ(library.error().message,
            "load cuDNN: /nowhere/two.so: cannot open shared object file: No such file or directory; install it");
}

TEST(DynamicLibrary, one_that_will_not_do_leaves_it_to_the_next) {
  const TempFolder folder;
  const std::string text = folder.write("no-library.so", "text\n");
  DynamicLibrary::Wanted wanted{
      .what = "mathematics", .places = {text, "libc.so.6", "libm.so.6"}, .remedy = "learn some", .symbol = "cbrt"};
  const auto library = DynamicLibrary::load(wanted);
  ASSERT_TRUE(library.ok()) << library.error().message;
  EXPECT_EQ(library->place(), "libm.so.6");
  wanted.places.pop_back();
  const auto none = DynamicLibrary::load(wanted);
  ASSERT_FALSE(none.ok());
  EXPECT_NE(none.error().message.find(text + ": "), std::string::npos) << none.error().message;
  EXPECT_NE(none.error().message.find("; libc.so.6 has no cbrt; learn some"), std::string::npos)
      << none.error().message;
}

TEST(DynamicLibrary, one_that_proves_unfit_is_said_with_the_remedy) {
  const auto library = DynamicLibrary::load({.what = "NCCL", .places = {"libm.so.6"}, .remedy = "install a newer one"});
  ASSERT_TRUE(library.ok());
  const Error error = library->unfit(Code::kUnsupported, "is version 1");
  EXPECT_EQ(error.code, Code::kUnsupported);
  EXPECT_EQ(error.message, "load NCCL: libm.so.6 is version 1; install a newer one");
}

TEST(DynamicLibrary, its_name_is_asked_for_or_the_environments_or_the_usual_one) {
  constexpr const char* kVariable = "PITCREW_TEST_LIBRARY_NAME";
  EXPECT_EQ(library_name("", kVariable, "usual.so"), "usual.so");
  setenv(kVariable, "named.so", 1);
  EXPECT_EQ(library_name("", kVariable, "usual.so"), "named.so");
  EXPECT_EQ(library_name("asked.so", kVariable, "usual.so"), "asked.so");
  setenv(kVariable, "", 1);
  EXPECT_EQ(library_name("", kVariable, "usual.so"), "usual.so");
  unsetenv(kVariable);
}

TEST(DynamicLibrary, ours_lie_beside_the_program) {
  const auto build = std::filesystem::canonical(PITCREW_BIN_DIR).parent_path().string();
  EXPECT_EQ(beside_program("libpitcrew_cuda.so"),
            (std::vector<std::string>{build + "/bin/libpitcrew_cuda.so", build + "/lib/libpitcrew_cuda.so",
                                      "libpitcrew_cuda.so"}));
}

}  // namespace
}  // namespace pitcrew
