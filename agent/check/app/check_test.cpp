#include "agent/check/app/check.hpp"

#include <cstdlib>
#include <fstream>
#include <sstream>

#include <gtest/gtest.h>

#include "lib/base/testing/temp_folder.hpp"

namespace pitcrew::check {
namespace {

class CheckProgram : public testing::Test {
 protected:
  CheckProgram() {
    options_.id = "c1";
    options_.node = "node-1";
    options_.backend = "cpu";
    options_.threads = 2;
    options_.thread_memory = 1 << 20;
    options_.disks = {folder_.path()};
    options_.disk_bytes = 8 << 20;
    options_.settings.time = milliseconds(1);
    options_.json = folder_.path() + "/result.json";
    options_.termination_log = folder_.path() + "/termination";
  }
  int run() {
    out_.str("");
    err_.str("");
    const ManualClock clock;
    return run_check(options_, clock, out_, err_).code;
  }
  api::CheckReport read(const std::string& file) const {
    std::ifstream in(folder_.path() + "/" + file);
    const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    const auto json = parse_json(text);
    EXPECT_TRUE(json) << text;
    const auto report = json ? api::CheckReport::decode(*json) : Result<api::CheckReport>(json.error());
    EXPECT_TRUE(report);
    return report ? *report : api::CheckReport();
  }

  TempFolder folder_;
  Options options_;
  std::ostringstream out_, err_;
};

TEST_F(CheckProgram, passes_with_threads_in_place_of_gpus_and_writes_the_same_result_everywhere) {
  EXPECT_EQ(run(), 0) << out_.str();
  const api::CheckReport report = read("result.json");
  EXPECT_EQ(report.outcome(), api::CheckOutcome::kPassed);
  EXPECT_EQ(report.id, "c1");
  EXPECT_EQ(report.backend, "cpu");
  EXPECT_EQ(report.devices.size(), 2u);
  EXPECT_EQ(read("termination").results(), report.results());
  for (const char* name : {"memory", "burn", "host", "collective", "disk"}) {
    EXPECT_NE(out_.str().find(name), std::string::npos) << name;
  }
  EXPECT_NE(out_.str().find("node node-1 by cpu: Passed"), std::string::npos) << out_.str();
}

TEST_F(CheckProgram, ends_with_1_where_something_falls_short) {
  options_.expect = {"host_bandwidth=1000000000"};
  EXPECT_EQ(run(), 1);
  EXPECT_EQ(read("termination").outcome(), api::CheckOutcome::kFailed);
}

TEST_F(CheckProgram, ends_with_2_where_there_is_no_gpu_and_says_nothing_about_hardware) {
  options_.backend = "cuda";
  options_.cuda_library = "/nonexistent/libpitcrew_check_cuda.so";
  EXPECT_EQ(run(), 2);
  EXPECT_EQ(read("result.json").tests[0].test, "gpu");
  EXPECT_EQ(read("result.json").outcome(), api::CheckOutcome::kUnknown);
}

TEST_F(CheckProgram, refuses_what_it_does_not_understand) {
  options_.expect = {"speed=1"};
  EXPECT_EQ(run(), 64);
  EXPECT_NE(err_.str().find("'speed' is none of"), std::string::npos);
  options_.expect.clear();
  options_.backend = "tpu";
  EXPECT_EQ(run(), 64);
  options_.backend = "cpu";
  options_.settings.tests = {"everything"};
  EXPECT_EQ(run(), 64);
}

TEST_F(CheckProgram, prints_the_document_alone_where_it_is_asked_for) {
  options_.json = "-";
  options_.settings.tests = {"disk"};
  EXPECT_EQ(run(), 0);
  EXPECT_TRUE(api::CheckReport::decode(*parse_json(out_.str())));
}

TEST_F(CheckProgram, is_a_program_with_these_exit_codes) {
  const std::string program = std::string(PITCREW_BIN_DIR) + "/pitcrew-check";
  const auto code = [&](const std::string& arguments) {
    const int status = std::system((program + " " + arguments + " >/dev/null 2>&1").c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  };
  const std::string quick = "--backend cpu --thread-memory 1048576 --time 0.001 ";
  EXPECT_EQ(code(quick + "--tests memory,burn"), 0);
  EXPECT_EQ(code(quick + "--tests burn --expect tensor_rate=1000"), 1);
  EXPECT_EQ(code("--tests memory --cuda-library /nonexistent.so"), 2);
  EXPECT_EQ(code("--what"), 64);
  EXPECT_EQ(code("--version"), 0);
}

}  // namespace
}  // namespace pitcrew::check
