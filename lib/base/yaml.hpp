#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/json.hpp"

namespace pitcrew {

// A YAML document as JSON, and the line (from 1) on which each path of it stands, so that a problem found in the JSON
// can be shown where the person wrote it.
struct YamlDocument {
  Json json;
  std::map<std::string, int> lines;  // "spec.checkpoint.every" → 14; "" → the document's first line

  // The line of a path, or of its nearest parent that is there.
  int line_of(std::string_view path) const;
};

// Reads all documents of a YAML text (JSON is YAML). Plain scalars become null, booleans (true, false), numbers or text
// as in YAML 1.2's core schema; quoted ones are always text. Errors name the line: bad syntax, a repeated key, a key
// that is not text, more than 100,000 nodes after aliases are expanded, nesting above 128 levels.
Result<std::vector<YamlDocument>> parse_yaml(std::string_view text);

}  // namespace pitcrew
