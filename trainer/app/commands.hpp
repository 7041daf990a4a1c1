#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace pitcrew::trainer {

// What `pitcrew-train` does; each returns the process's exit code and says on standard error why it isn't 0.

// Trains as the rank that the environment says.
int run_train(const std::string& config, const std::vector<std::string>& sets);

struct SampleOptions {
  std::string checkpoint;  // its folder, or the folder of checkpoints: then the newest that is whole
  std::string prompt;      // text; for models of token files, token numbers with commas
  uint32_t tokens = 200;
  double temperature = 0.8;  // 0: always the likeliest
  uint64_t seed = 1;
  unsigned threads = 1;
};
// Generates from a checkpoint to standard output.
int run_sample(const SampleOptions& options);

// Prints the `model:` section that fits a folder of `transformers`.
int run_import(const std::string& folder);
// Writes a checkpoint as `transformers` reads it. dtype: "f32" or "bf16".
int run_export(const std::string& checkpoint, const std::string& folder, const std::string& dtype);

struct PlanOptions {
  std::string config;
  std::vector<std::string> sets;
  std::string grid = "1";  // replicas[xshards[xtensor]]
  bool gpu = false;
  double memory_gb = 0;  // of the device; 0: not compared
};
// Prints what a configuration comes to: parameters, memory and work per rank. Needs no GPU.
int run_plan(const PlanOptions& options);

struct CheckpointsOptions {
  std::string path;     // the folder of checkpoints
  std::string name;     // of one in it; empty: all, or with `verify` the newest
  bool verify = false;  // read every byte
};
// Prints what a folder of checkpoints holds, as one line of JSON; bad data where one isn't intact.
int run_checkpoints(const CheckpointsOptions& options);

}  // namespace pitcrew::trainer
