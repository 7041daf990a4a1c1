#pragma once

#include <string>

#include "lib/base/result.hpp"

namespace pitcrew {

// A function of a library of ours that is loaded where it is needed: from beside the program, its ../lib, or where the
// system looks. Never unloaded. kNotFound: no such library, or none that can be loaded; the message says what was
// tried.
Result<void*> load_symbol(const std::string& library, const char* symbol);

}  // namespace pitcrew
