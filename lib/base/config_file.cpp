#include "lib/base/config_file.hpp"

#include <cstdlib>

#include "lib/base/yaml.hpp"

namespace pitcrew {
namespace {

const std::vector<std::pair<std::string_view, LogLevel>> kLevels{{"debug", LogLevel::kDebug},
                                                                 {"info", LogLevel::kInfo},
                                                                 {"warning", LogLevel::kWarning},
                                                                 {"error", LogLevel::kError}};

}  // namespace

Status read_config(const std::string& text, const std::string& file,
                   const std::function<void(ObjectReader& reader, Problems& problems)>& read) {
  const auto documents = parse_yaml(text);
  if (!documents) return documents.error().with_context(file);
  if (documents->size() != 1) {
    return Error(Code::kInvalidArgument,
                 file + ": must be one YAML document, has " + std::to_string(documents->size()));
  }
  const YamlDocument& document = documents->front();
  Problems problems;
  ObjectReader reader(document.json, "", problems);
  read(reader, problems);
  reader.finish();
  if (problems.empty()) return {};
  std::string message;
  for (const Problem& problem : problems) {
    message += (message.empty() ? "" : "\n") + file + ":" + std::to_string(document.line_of(problem.path)) + ": " +
               (problem.path.empty() ? "" : problem.path + ": ") + problem.message;
  }
  return Error(Code::kInvalidArgument, message);
}

void read_log_keys(ObjectReader& reader, LogLevel& level, LogFormat& format) {
  reader.read_enum("logLevel", level, kLevels);
  reader.read_enum("logFormat", format, {{"json", LogFormat::kJson}, {"plain", LogFormat::kPlain}});
}

Result<LogLevel> parse_log_level(const std::string& word) {
  for (const auto& [name, level] : kLevels) {
    if (name == word) return level;
  }
  return Error(Code::kInvalidArgument, "log level '" + word + "' is none of: debug, info, warning, error");
}

std::string environment_or(const char* name, const std::string& otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr || *value == '\0' ? otherwise : value;
}

}  // namespace pitcrew
