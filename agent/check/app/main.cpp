#include <cstdlib>
#include <filesystem>
#include <iostream>

#include <CLI/CLI.hpp>
#include <unistd.h>

#include "agent/check/app/check.hpp"
#include "lib/base/version.hpp"

namespace {

// The library lies beside the program, or in the lib folder of the same place.
std::string default_library() {
  std::error_code ignored;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", ignored);
  const auto beside = program.parent_path() / "libpitcrew_check_cuda.so";
  if (std::filesystem::exists(beside, ignored)) return beside.string();
  return (program.parent_path().parent_path() / "lib" / "libpitcrew_check_cuda.so").string();
}

}  // namespace

int main(int argc, char** argv) {
  using namespace pitcrew;
  CLI::App app{
      "Checks this node's GPUs, network and disks in depth. It needs all of them for itself: nothing else may run.\n"
      "Exit code: 0 passed, 1 the hardware failed, 2 could not be checked, 64 wrong use."};
  app.set_version_flag("--version", "pitcrew-check " + version());
  check::Options options;
  options.cuda_library = default_library();
  std::vector<std::string> tests;
  double time = 20, limit = 300;
  app.add_option("--id", options.id, "The request that this answers");
  app.add_option("--node", options.node, "The node's name")->envname("NODE_NAME");
  app.add_option("--instance", options.instance, "The machine's type, like p5.48xlarge: what it should have and reach")
      ->envname("INSTANCE_TYPE");
  app.add_option("--backend", options.backend, "cuda, cpu (threads in place of GPUs) or none")->capture_default_str();
  app.add_option("--cuda-library", options.cuda_library, "Where libpitcrew_check_cuda.so is");
  app.add_option("--tests", tests, "Some of memory, burn, host, collective, efa, disk; default all")->delimiter(',');
  app.add_option("--time", time, "Seconds that each test takes, about")->capture_default_str();
  app.add_option("--limit", limit, "Seconds after which a test counts as hanging")->capture_default_str();
  app.add_option("--memory-share", options.settings.memory_share, "Of the free memory of each GPU")
      ->capture_default_str();
  app.add_option("--seed", options.settings.seed, "Of patterns and matrices")->capture_default_str();
  app.add_option("--disk", options.disks, "A folder whose disk is checked; may be repeated");
  app.add_option("--disk-bytes", options.disk_bytes, "Written to each")->capture_default_str();
  app.add_option("--efa-tools", options.efa_folders, "Another folder with fi_info and fi_pingpong");
  app.add_option("--expect", options.expect, "What must be reached, in place of the table: host_bandwidth=40");
  app.add_option("--threads", options.threads, "Of backend cpu")->capture_default_str();
  app.add_option("--thread-memory", options.thread_memory, "Bytes, of backend cpu")->capture_default_str();
  app.add_option("--json", options.json, "A file for the result document; - for standard output");
  app.add_option("--termination-log", options.termination_log, "A file for the document within 4096 bytes");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : check::kWrongUse;
  }
  if (!tests.empty()) options.settings.tests = {tests.begin(), tests.end()};
  options.settings.time = from_seconds(time);
  options.settings.limit = from_seconds(limit);
  const RealClock clock;
  const check::Done done = check::run_check(options, clock, std::cout, std::cerr);
  if (done.hangs) {
    std::cout.flush();
    std::cerr.flush();
    ::_exit(done.code);
  }
  return done.code;
}
