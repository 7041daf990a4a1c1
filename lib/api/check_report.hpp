#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/api/node_health.hpp"
#include "lib/base/json.hpp"

namespace pitcrew::api {

// One measured number, and what it must reach where that is known.
struct CheckFigure {
  std::string name;  // "bandwidth"
  std::string unit;  // "GB/s"
  double value = 0;
  std::optional<double> least;
  bool operator==(const CheckFigure&) const = default;
};

struct CheckTest {
  std::string test;    // memory, burn, host, collective, efa, disk
  std::string device;  // a GPU's UUID, an EFA device, a folder; empty: all of the node's
  CheckOutcome outcome = CheckOutcome::kUnknown;
  std::string message;  // why it is not passed
  double seconds = 0;
  std::vector<CheckFigure> figures;
  bool operator==(const CheckTest&) const = default;
};

// The result document of pitcrew-check: what a deep check of one node has found. The same whether its GPUs were checked
// or, in tests, threads in their place; `backend` says which.
struct CheckReport {
  std::string id;        // of the request
  std::string node;      // its name
  std::string instance;  // p5.48xlarge
  std::string backend;   // cuda, cpu
  Instant time;          // when it was done
  double seconds = 0;
  std::vector<std::string> devices;  // UUIDs
  std::vector<CheckTest> tests;
  bool operator==(const CheckReport&) const = default;

  // Failed where a test is; else unknown where a test is, or none has passed; else passed.
  CheckOutcome outcome() const;

  Json encode() const;
  static Result<CheckReport> decode(const Json& json);
  // As text of at most `limit` bytes, for a container's termination message (4096): where the whole does not fit, first
  // figures of what passed are left out, then tests that passed, then messages are cut.
  std::string encode_within(size_t limit) const;
  // For NodeHealth.status.checks: one for each kind of test; a skipped one is left out.
  std::vector<CheckResult> results() const;
};

}  // namespace pitcrew::api
