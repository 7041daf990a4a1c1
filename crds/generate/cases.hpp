#pragma once

#include <iosfwd>
#include <string>
#include <vector>

namespace pitcrew::crd {

// One line of JSON for each manifest: {name, text, problems: [{path, message}]}, or for an update {name, old, new,
// problems}. The problems are lib/api's own. 1 where a file can't be read.
int print_cases(const std::vector<std::string>& files, std::ostream& out, std::ostream& err);

}  // namespace pitcrew::crd
