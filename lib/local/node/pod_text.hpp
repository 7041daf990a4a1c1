#pragma once

#include <map>
#include <string>

namespace pitcrew::local {

// Replaces paths below a key of `paths` by paths below its value wherever one begins in the text: at its start or after
// one of = : , ; quotes, brackets and white space. The longest key wins.
std::string map_paths(const std::string& text, const std::map<std::string, std::string>& paths);
// $(NAME) becomes the variable's value, $$ a dollar sign, as in Kubernetes; unknown names stay.
std::string expand_variables(const std::string& text, const std::map<std::string, std::string>& variables);

}  // namespace pitcrew::local
