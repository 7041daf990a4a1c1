#pragma once

#include <string>

#include "lib/api/check_report.hpp"

namespace pitcrew::check {

// A check's result as a table for a terminal, one line for each test and device.
std::string to_table(const api::CheckReport& report);

}  // namespace pitcrew::check
