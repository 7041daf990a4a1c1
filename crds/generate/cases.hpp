#pragma once

#include <iosfwd>
#include <string>
#include <vector>

namespace pitcrew::crd {

// One line of JSON for each manifest: {name, text, problems: [{path, message}]}, or for an update {name, old, new,
// problems}. The problems are lib/api's own. 1 where a file can't be read, or there is no such kind ("trainingjob").
// Files are for TrainingJobs.
int print_cases(const std::string& kind, const std::vector<std::string>& files, std::ostream& out, std::ostream& err);

// Those of "healthpolicy", "nodehealth" and "cordonbudget"; false where it is none of these.
bool print_health_cases(const std::string& kind, std::ostream& out);

}  // namespace pitcrew::crd
