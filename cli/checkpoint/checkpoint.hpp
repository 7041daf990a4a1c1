#pragma once

#include <ostream>
#include <string>

#include "cli/connect/cluster.hpp"
#include "cli/show/document.hpp"
#include "cli/show/terminal.hpp"

namespace pitcrew::cli {

struct LookOptions {
  bool verify = false;  // read every byte
  std::string step;     // of one checkpoint alone, as its folder is named; empty: all (ls) or the newest (verify)
  std::string image;    // of the short pod; has pitcrew-train
  Duration patience = minutes(10);
};

// Whether `checkpoint ls` and `verify` mean a folder of this machine.
bool is_local(const std::string& job_or_path);

// Exit codes: 0 done; 1 refused, or a checkpoint is damaged; 5 not answered in time.
int checkpoint_now(Cluster& cluster, const std::string& job, Duration patience, std::ostream& out, std::ostream& err);
int look_locally(const std::string& path, const LookOptions& options, Format format, const Terminal& terminal,
                 std::ostream& out, std::ostream& err);
int look_in_pod(Cluster& cluster, const std::string& job, const LookOptions& options, Format format,
                const Terminal& terminal, std::ostream& out, std::ostream& err);

// The pod that look_in_pod() makes: the job's volumes, no GPUs, one attempt. Pure.
Json look_pod(const api::TrainingJob& job, const std::string& name, const LookOptions& options);

// {checkpoints: [{name, step, claim, bytes, intact, problem}]}, as text.
std::string print_checkpoints(const Json& document, const Terminal& terminal);

}  // namespace pitcrew::cli
