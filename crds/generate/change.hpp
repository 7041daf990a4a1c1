#pragma once

#include <iosfwd>
#include <string>

#include "lib/base/json.hpp"

namespace pitcrew::crd {

// A value at a place of a good manifest; JSON null takes the field away.
struct Change {
  const char* pointer;
  const char* value;
};

Json changed(Json manifest, const Change& change);

Json problems_json(const Problems& problems);

// One line: {name, object, problems}.
void print_case(std::ostream& out, const std::string& name, const Json& manifest, const Problems& problems);
// The good manifest, and one with each change.
void print_changes(std::ostream& out, const Json& good, const Change* begin, const Change* end,
                   Problems (*problems_of)(const Json& manifest));

}  // namespace pitcrew::crd
