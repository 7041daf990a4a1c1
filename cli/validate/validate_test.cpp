#include "cli/validate/validate.hpp"

#include <filesystem>
#include <fstream>
#include <sstream>

#include <gtest/gtest.h>

namespace pitcrew::cli {
namespace {

const std::filesystem::path kWrong = std::filesystem::path(PITCREW_SOURCE_DIR) / "lib/api/testdata/wrong";

// Each wrong manifest begins with comments that hold exactly what is to be said about it, in the order of its lines:
//   # 12: spec.replicas: must be at least 1
TEST(Validate, each_wrong_manifest_gets_all_its_lines_paths_and_remedies) {
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kWrong)) {
    ++files;
    std::ifstream in(entry.path());
    std::stringstream buffer;
    buffer << in.rdbuf();
    std::vector<std::string> wanted, got;
    std::string line;
    while (std::getline(buffer, line) && line.starts_with("# ")) wanted.push_back(line.substr(2));
    for (const FileProblem& problem : check_manifest(buffer.str())) {
      got.push_back(std::to_string(problem.line) + ": " + (problem.path.empty() ? "" : problem.path + ": ") +
                    problem.message);
    }
    EXPECT_FALSE(wanted.empty()) << entry.path();
    EXPECT_EQ(got, wanted) << entry.path();
  }
  EXPECT_GE(files, 30u);
}

TEST(Validate, the_exit_code_tells_good_wrong_and_unreadable_apart) {
  std::ostringstream out, err;
  EXPECT_EQ(validate_files({(kWrong / "replicas_zero.yaml").string()}, out, err), 1);
  EXPECT_NE(out.str().find("replicas_zero.yaml:"), std::string::npos);
  EXPECT_EQ(validate_files({"/nowhere/at/all.yaml"}, out, err), 2);
  EXPECT_NE(err.str().find("can't be read"), std::string::npos);
}

TEST(Validate, other_objects_of_a_file_are_passed_over_but_one_job_must_be_there) {
  EXPECT_EQ(check_manifest("kind: ConfigMap\napiVersion: v1\n").size(), 1u);
  const std::string job = R"(
apiVersion: v1
kind: ConfigMap
---
apiVersion: pitcrew.dev/v1alpha1
kind: TrainingJob
metadata: {name: demo}
spec: {template: {spec: {containers: [{name: a, command: [x]}]}}}
)";
  EXPECT_TRUE(check_manifest(job).empty());
}

}  // namespace
}  // namespace pitcrew::cli
