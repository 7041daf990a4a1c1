// One file for any image: what the launcher opens, and that it runs where there is nothing but itself.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "launcher/supervise/proc.hpp"
#include "launcher/testing/fake_operator.hpp"

namespace pitcrew::launcher {
namespace {

using namespace api::channel;
using testing::EpochBuilder;
using testing::Pod;

std::string content(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

bool runs(const std::string& command) { return system((command + " >/dev/null 2>&1").c_str()) == 0; }

class IsolationTest : public ::testing::Test {
 protected:
  IsolationTest() : root_(testing::make_temporary_folder()), operator_(loop_) {}
  ~IsolationTest() override {
    if (!runs("rm -rf " + root_)) ADD_FAILURE() << "could not remove " << root_;
  }

  // Two launchers: an epoch with copies and pings, a cut channel, an end.
  void live_a_whole_life(const std::vector<std::string>& program) {
    Pod a(loop_, operator_, root_, "a"), b(loop_, operator_, root_, "b");
    mkdir((a.memory() + "/own").c_str(), 0770);
    mkdir((a.memory() + "/own/step-20-c1").c_str(), 0770);
    std::ofstream(a.memory() + "/own/step-20-c1/shard") << "bytes";
    a.start({"/bin/sh", "-c",
             std::string(PITCREW_TEST_RANK) +
                 R"( ask '{"id":9,"op":"push","checkpoint":"step-20-c1","files":["shard"]}'; sleep 1000)"},
            program);
    b.start({PITCREW_TEST_RANK, "sleep"});
    EpochBuilder builder;
    builder.pods = {operator_.expect<Hello>("a").value_or(Hello{}), operator_.expect<Hello>("b").value_or(Hello{})};
    builder.checkpoint.memory_steps = 20;
    operator_.send("a", builder.for_slot(0));
    operator_.send("b", builder.for_slot(1));
    EXPECT_TRUE(operator_.wait([&] { return a.output().find("\"copies\":[1]") != std::string::npos; })) << a.output();
    operator_.go_away();
    operator_.come_back();
    EXPECT_TRUE(operator_.expect<Hello>("a"));
    operator_.send("a", Finish{builder.for_slot(0).id, true});
    EXPECT_EQ(a.exit_code(), 0) << a.output();
  }

  // Runs the program in the root as the only thing there, from its epoch to the end of its one rank.
  void run_in_root(const std::string& root, const std::vector<std::string>& command, const std::string& printed) {
    for (const char* sub : {"", "/pod", "/pod/run", "/pod/memory", "/proc", "/dev"}) mkdir((root + sub).c_str(), 0755);
    std::filesystem::copy_file(PITCREW_LAUNCHER, root + "/pitcrew-launcher",
                               std::filesystem::copy_options::overwrite_existing);
    Pod pod(loop_, operator_, root_, "a");
    std::filesystem::copy_file(pod.folder() + "/channel.json", root + "/pod/channel.json");
    std::filesystem::copy_file(pod.folder() + "/token", root + "/pod/token");
    pod.set("PITCREW_CHANNEL_FILE", "/pod/channel.json");
    pod.set("PITCREW_TOKEN_FILE", "/pod/token");
    pod.set("PITCREW_RUN_FOLDER", "/pod/run");
    pod.set("PITCREW_MEMORY_FOLDER", "/pod/memory");
    pod.start(command, {"/usr/sbin/chroot", root, "/pitcrew-launcher"});
    EpochBuilder builder;
    builder.pods = {operator_.expect<Hello>("a").value_or(Hello{})};
    operator_.send("a", builder.for_slot(0));
    const auto exited = operator_.expect<Exited>("a");
    ASSERT_TRUE(exited) << pod.output();
    EXPECT_EQ(exited->reason, "exit code 0");
    operator_.send("a", Finish{builder.for_slot(0).id, true});
    EXPECT_EQ(pod.exit_code(), 0);
    EXPECT_NE(pod.output().find(printed), std::string::npos) << pod.output();
  }

  net::AsioLoop loop_;
  std::string root_;
  testing::FakeOperator operator_;
};

TEST_F(IsolationTest, opens_no_resolver_file_and_no_shared_library) {
  if (!PITCREW_LAUNCHER_IS_STATIC) GTEST_SKIP() << "not run: a sanitizer's build is not static";
  if (!runs("strace -V") || !runs("strace -o /dev/null true"))
    GTEST_SKIP() << "not run: strace is not installed or may not trace here";
  // One file a thread; those in which a program of the ranks was executed are the ranks'.
  live_a_whole_life(
      {"strace", "-ff", "-e", "trace=open,openat,openat2,execve,connect", "-o", root_ + "/trace", PITCREW_LAUNCHER});
  size_t traces = 0, opened = 0;
  for (const auto& entry : std::filesystem::directory_iterator(root_)) {
    if (!entry.path().filename().string().starts_with("trace.")) continue;
    const std::string text = content(entry.path());
    const bool launcher =
        text.find("execve(") == std::string::npos || text.find("\"run\", \"--\"") != std::string::npos;
    if (!launcher) continue;
    ++traces;
    for (const char* word : {"resolv.conf", "nsswitch.conf", "/etc/hosts", "gai.conf", "/etc/passwd", ".so",
                             "openssl.cnf", "ld.so", "sin_port=htons(53)"}) {
      EXPECT_EQ(text.find(word), std::string::npos) << word << " in\n" << text;
    }
    opened += text.find("channel.json") != std::string::npos ? 1 : 0;
  }
  EXPECT_GE(traces, 2u) << "the loop's thread and the writer's";
  EXPECT_EQ(opened, 1u) << "the trace shows what is opened";
}

TEST_F(IsolationTest, runs_in_an_empty_root) {
  if (!PITCREW_LAUNCHER_IS_STATIC) GTEST_SKIP() << "not run: a sanitizer's build is not static";
  if (geteuid() != 0) GTEST_SKIP() << "not run: chroot needs root";
  run_in_root(root_ + "/empty", {"/pitcrew-launcher", "--version"}, "[rank 0] pitcrew-launcher ");
}

TEST_F(IsolationTest, runs_where_the_only_library_is_musl) {
  if (!PITCREW_LAUNCHER_IS_STATIC) GTEST_SKIP() << "not run: a sanitizer's build is not static";
  if (geteuid() != 0) GTEST_SKIP() << "not run: chroot needs root";
  if (!runs("musl-gcc --version")) GTEST_SKIP() << "not run: musl-gcc is not installed (Debian: musl-tools)";
  const std::string root = root_ + "/musl";
  for (const char* sub : {"", "/lib"}) mkdir((root + sub).c_str(), 0755);
  std::ofstream(root_ + "/rank.c") << "#include <stdio.h>\n#include <stdlib.h>\nint main(void) { printf(\"musl "
                                      "%s\\n\", getenv(\"RANK\")); return 0; }\n";
  ASSERT_TRUE(runs("musl-gcc -o " + root + "/rank " + root_ + "/rank.c"));
  ASSERT_TRUE(runs("cp -L /lib/ld-musl-*.so.1 " + root + "/lib/"));
  run_in_root(root, {"/rank"}, "[rank 0] musl 0\n");
}

TEST_F(IsolationTest, copies_itself_whole_and_executable) {
  const std::string folder = root_ + "/bin";
  mkdir(folder.c_str(), 0755);
  for (const std::string& destination : {folder, folder + "/other-name"}) {
    ASSERT_TRUE(runs(std::string(PITCREW_LAUNCHER) + " copy " + destination));
  }
  for (const std::string& file : {folder + "/pitcrew-launcher", folder + "/other-name"}) {
    EXPECT_EQ(content(file), content(PITCREW_LAUNCHER));
    EXPECT_TRUE(runs(file + " --version"));
  }
  EXPECT_FALSE(runs(std::string(PITCREW_LAUNCHER) + " copy /no/such/folder/x"));
  EXPECT_FALSE(runs(PITCREW_LAUNCHER));
  EXPECT_TRUE(runs(std::string(PITCREW_LAUNCHER) + " --help"));
}

TEST(StaticLink, fails_where_glibc_would_need_the_images_libraries) {
  const std::string root = testing::make_temporary_folder();
  std::ofstream(root + "/bad.cpp") << "#include <netdb.h>\nint main() { return gethostbyname(\"x\") != nullptr; }\n";
  std::ofstream(root + "/good.cpp") << "int main() { return 0; }\n";
  const std::string script = PITCREW_SOURCE_DIR "/launcher/app/link-static.sh " PITCREW_CXX " -static ";
  for (const bool good : {true, false}) {
    const std::string name = root + (good ? "/good" : "/bad");
    ASSERT_TRUE(runs(PITCREW_CXX " -c -o " + name + ".o " + name + ".cpp"));
    EXPECT_EQ(runs(script + name + ".o -o " + name), good) << "the same call is libcrypto's to make, not ours";
    EXPECT_EQ(access(name.c_str(), X_OK) == 0, good);
  }
  EXPECT_TRUE(runs("rm -rf " + root));
}

}  // namespace
}  // namespace pitcrew::launcher
