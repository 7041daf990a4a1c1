#pragma once

#include <functional>
#include <string>

#include "lib/base/json.hpp"
#include "lib/base/log.hpp"

namespace pitcrew {

// Reads a program's configuration: the text of one YAML document, of which `read` takes what the program knows. All
// that is wrong with it, unknown keys included, is one error, each problem with its line, its path and a remedy. `file`
// is for messages.
Status read_config(const std::string& text, const std::string& file,
                   const std::function<void(ObjectReader& reader, Problems& problems)>& read);

// The keys logLevel and logFormat.
void read_log_keys(ObjectReader& reader, LogLevel& level, LogFormat& format);
Result<LogLevel> parse_log_level(const std::string& word);

// A variable of the process's environment; one that is empty counts as absent.
std::string environment_or(const char* name, const std::string& otherwise);

}  // namespace pitcrew
