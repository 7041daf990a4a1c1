#include "cli/validate/validate.hpp"

#include <algorithm>
#include <fstream>
#include <iostream>
#include <sstream>

#include "lib/api/training_job.hpp"
#include "lib/base/yaml.hpp"

namespace pitcrew::cli {
namespace {

bool is_training_job(const Json& document) {
  const auto kind = document.is_object() ? document.find("kind") : document.end();
  const auto api = document.is_object() ? document.find("apiVersion") : document.end();
  if (kind != document.end() && *kind == api::TrainingJob::type().kind) return true;
  return api != document.end() && api->is_string() && api->get_ref<const std::string&>().starts_with(api::kGroup);
}

// "line 12: message" of the YAML reader, taken apart.
FileProblem of_reader(const Error& error) {
  FileProblem problem{1, "", error.message};
  int line = 0;
  int consumed = 0;
  if (std::sscanf(error.message.c_str(), "line %d: %n", &line, &consumed) == 1 && consumed > 0) {
    problem = {line, "", error.message.substr(static_cast<size_t>(consumed))};
  }
  return problem;
}

}  // namespace

std::vector<FileProblem> check_manifest(const std::string& text) {
  const auto documents = parse_yaml(text);
  if (!documents) return {of_reader(documents.error())};
  std::vector<FileProblem> found;
  size_t jobs = 0;
  for (const YamlDocument& document : *documents) {
    if (!is_training_job(document.json)) continue;
    ++jobs;
    Problems problems;
    const api::TrainingJob job = api::decode_training_job(document.json, problems);
    api::validate(job, problems);
    for (const Problem& problem : problems)
      found.push_back({document.line_of(problem.path), problem.path, problem.message});
  }
  if (jobs == 0) {
    found.push_back({1, "",
                     "no TrainingJob in it; one begins with apiVersion: " + api::TrainingJob::type().api_version() +
                         " and kind: TrainingJob"});
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const FileProblem& a, const FileProblem& b) { return a.line < b.line; });
  return found;
}

int validate_files(const std::vector<std::string>& files, std::ostream& out, std::ostream& err) {
  int code = 0;
  for (const std::string& file : files) {
    std::stringstream text;
    if (file == "-") {
      text << std::cin.rdbuf();
    } else {
      std::ifstream in(file);
      if (!in) {
        err << file << ": can't be read; check the path and its permissions\n";
        code = 2;
        continue;
      }
      text << in.rdbuf();
    }
    const std::vector<FileProblem> problems = check_manifest(text.str());
    for (const FileProblem& problem : problems) {
      out << file << ":" << problem.line << ": " << (problem.path.empty() ? "" : problem.path + ": ") << problem.message
          << "\n";
    }
    if (problems.empty()) out << file << ": good\n";
    if (!problems.empty() && code == 0) code = 1;
  }
  return code;
}

}  // namespace pitcrew::cli
