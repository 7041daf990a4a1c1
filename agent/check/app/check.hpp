#pragma once

#include <iosfwd>
#include <string>
#include <vector>

#include "agent/check/suite/suite.hpp"
#include "lib/base/clock.hpp"

namespace pitcrew::check {

// What pitcrew-check is asked to do.
struct Options {
  std::string id;                // of the request
  std::string node;              // its name
  std::string instance;          // p5.48xlarge
  std::string backend = "cuda";  // or cpu: threads in place of GPUs; none: only what needs no GPU
  std::string cuda_library;      // where libpitcrew_check_cuda.so is
  size_t threads = 2;            // of backend cpu
  uint64_t thread_memory = uint64_t{64} << 20;
  std::vector<std::string> disks;  // folders
  uint64_t disk_bytes = uint64_t{1} << 30;
  std::vector<std::string> efa_folders;  // beside those where libfabric's tools usually are
  std::vector<std::string> expect;       // host_bandwidth=40
  std::string json;             // a file for the result document; "-" is standard output, in place of the table
  std::string termination_log;  // a file for it within 4096 bytes
  Settings settings;
};

// Exit codes, as node-problem-detector's programs have them, and sysexits' for a wrong command line.
constexpr int kPassed = 0, kFailed = 1, kUnknown = 2, kWrongUse = 64;

struct Done {
  int code = kUnknown;
  bool hangs = false;  // leave by _exit: a thread is still inside a driver
};
// Runs the check and writes what came of it: a table or the document to `out`, progress and errors to `err`.
Done run_check(const Options& options, const Clock& clock, std::ostream& out, std::ostream& err);

}  // namespace pitcrew::check
