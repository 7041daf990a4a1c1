#pragma once

#include <ostream>
#include <string>

#include "cli/connect/cluster.hpp"
#include "cli/diagnose/judge.hpp"
#include "cli/show/document.hpp"
#include "cli/show/terminal.hpp"

namespace pitcrew::cli {

// The screen: what was looked at, what else was found, and last the likeliest cause and the next command.
std::string print_diagnosis(const Facts& facts, const Diagnosis& diagnosis, const Terminal& terminal);
Json document_of(const Facts& facts, const Diagnosis& diagnosis);

// `pitcrew diagnose JOB`. Exit codes: 0 nothing is wrong, 1 something is, else as in exit_code.hpp.
int diagnose(Cluster& cluster, const std::string& job, Format format, const Terminal& terminal, std::ostream& out,
             std::ostream& err);

}  // namespace pitcrew::cli
