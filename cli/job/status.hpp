#pragma once

#include <ostream>
#include <string>

#include "cli/connect/cluster.hpp"
#include "cli/show/document.hpp"
#include "cli/show/terminal.hpp"
#include "lib/api/training_job.hpp"

namespace pitcrew::cli {

// One screen: what is it doing, how far, what did it cost, what went wrong last. Pure.
std::string print_status(const api::TrainingJob& job, Instant now, const Terminal& terminal, bool wide);
Json status_document(const api::TrainingJob& job, Instant now);
// One line a job.
std::string print_jobs(const std::vector<api::TrainingJob>& jobs, Instant now, const Terminal& terminal,
                       bool namespaces);

// Why it isn't training, in one sentence, from its conditions alone; empty: it is.
std::string waiting_for(const api::TrainingJob& job);
// "NodeLoss on n1 → SpareTaken"
std::string headline(const api::Recovery& recovery);
// From what happened to the next step.
std::optional<Duration> took(const api::Recovery& recovery);

// `pitcrew status [JOB]`: without a job, all of the namespace (or of all: -A). Exit codes as in exit_code.hpp; 1: a job
// that was named has failed.
int show_status(Cluster& cluster, const std::string& job, bool all_namespaces, Format format, const Terminal& terminal,
                std::ostream& out, std::ostream& err);

}  // namespace pitcrew::cli
