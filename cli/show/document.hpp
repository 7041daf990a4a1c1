#pragma once

#include <string>

#include "lib/base/json.hpp"
#include "lib/base/result.hpp"

namespace pitcrew::cli {

enum class Format { kText, kWide, kJson, kYaml };

// "", text, wide, json or yaml.
Result<Format> parse_format(const std::string& word);

// For -o json and -o yaml; ends with a line feed.
std::string print_document(const Json& document, Format format);

}  // namespace pitcrew::cli
