#include "trainer/app/config_file.hpp"

#include <filesystem>

#include "lib/base/file.hpp"
#include "lib/base/yaml.hpp"

namespace pitcrew::trainer {
namespace {

constexpr uint64_t kLimit = 1 << 20;

Status apply(const std::string& set, Json& root) {
  const size_t equals = set.find('=');
  const Error wrong(Code::kInvalidArgument, "--set " + set + ": must be a path, '=' and a value: batch.micro=2");
  if (equals == std::string::npos || equals == 0) return wrong;
  auto value = parse_yaml(set.substr(equals + 1));
  if (!value) return value.error().with_context("--set " + set);
  Json* place = &root;
  const std::string path = set.substr(0, equals);
  for (size_t from = 0; from <= path.size();) {
    const size_t dot = std::min(path.find('.', from), path.size());
    if (dot == from) return wrong;
    if (place->is_null()) *place = Json::object();
    if (!place->is_object())
      return Error(Code::kInvalidArgument, "--set " + set + ": " + path.substr(0, from - 1) + " is no object");
    place = &(*place)[path.substr(from, dot - from)];
    from = dot + 1;
  }
  *place = value->empty() ? Json() : std::move(value->front().json);
  return {};
}

}  // namespace

Result<TrainConfig> load_config(const std::string& path, const std::vector<std::string>& sets) {
  auto text = read_file(posix_file_system(), path, kLimit);
  if (!text) return text.error().with_context("configuration");
  auto documents = parse_yaml(*text);
  if (!documents) return documents.error().with_context(path);
  if (documents->size() != 1)
    return Error(Code::kInvalidArgument,
                 path + ": must be one YAML document, has " + std::to_string(documents->size()));
  YamlDocument& document = documents->front();
  for (const std::string& set : sets) PITCREW_TRY(apply(set, document.json));

  Problems problems;
  const std::string folder = std::filesystem::absolute(path).parent_path().string();
  auto config = read_train_config(document.json, folder, problems);
  if (config) return *std::move(config);
  std::string message;
  for (const Problem& problem : problems) {
    // A problem of the model's own reader carries its path in the message.
    const std::string where =
        problem.path.empty() ? problem.message.substr(0, problem.message.find(':')) : problem.path;
    message += (message.empty() ? "" : "\n") + path + ":" + std::to_string(document.line_of(where)) + ": " +
               (problem.path.empty() ? problem.message : problem.path + ": " + problem.message);
  }
  return Error(Code::kInvalidArgument, message);
}

}  // namespace pitcrew::trainer
