#pragma once

#include <string>
#include <vector>

namespace pitcrew::cli {

// `pitcrew -n team-a status llama`, as kubectl takes it: the flags of a cluster that stand before the command, put
// behind everything else, where the command reads them. Other words stay as they are.
std::vector<std::string> with_flags_behind(std::vector<std::string> words);

}  // namespace pitcrew::cli
