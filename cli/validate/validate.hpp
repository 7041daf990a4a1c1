#pragma once

#include <ostream>
#include <string>
#include <vector>

namespace pitcrew::cli {

struct FileProblem {
  int line = 0;
  std::string path;  // of the field; empty: of the file
  std::string message;
};

// Everything that is wrong with the TrainingJobs of a YAML text, in the order of its lines. Objects of other kinds are
// passed over, as `kubectl apply -f` takes them along; a text without any TrainingJob is a problem.
std::vector<FileProblem> check_manifest(const std::string& text);

// `pitcrew validate FILE…`: prints file:line: path: message for each problem, and a line for each good file. Returns
// the exit code: 0 all good, 1 problems found, 2 a file can't be read.
int validate_files(const std::vector<std::string>& files, std::ostream& out, std::ostream& err);

}  // namespace pitcrew::cli
