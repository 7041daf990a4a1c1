#include "agent/check/suite/suite.hpp"

#include <chrono>
#include <cstdio>
#include <iterator>
#include <memory>

#include "agent/check/suite/votes.hpp"
#include "agent/check/suite/within.hpp"

namespace pitcrew::check {
namespace {

using api::CheckOutcome;
using api::CheckTest;

constexpr double kGiga = 1e9, kTera = 1e12;

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, value >= 100 ? "%.0f" : "%.3g", value);
  return text;
}

std::string hex(uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

void fail(CheckTest& test, const std::string& message) {
  test.outcome = CheckOutcome::kFailed;
  test.message += (test.message.empty() ? "" : "; ") + message;
}

CheckTest begin(const char* name, const std::string& device = "") {
  return {name, device, CheckOutcome::kPassed, "", 0, {}};
}

CheckTest skipped(const char* name, const std::string& why) { return {name, "", CheckOutcome::kSkipped, why, 0, {}}; }

// Whether there is an outcome to look at; else says why not.
template <typename T>
bool answered(CheckTest& test, const std::optional<Result<T>>& result, Duration limit, bool& hangs) {
  if (!result) {
    hangs = true;
    fail(test, "did not end within " + pitcrew::to_string(limit));
    return false;
  }
  if (result->ok()) return true;
  if (result->error().code == Code::kDataLoss) {
    fail(test, result->error().message);
  } else {
    test.outcome = CheckOutcome::kUnknown;
    test.message = result->error().message;
  }
  return false;
}

double since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Runs `task` for every device at once.
template <typename T, typename F>
std::vector<std::optional<Result<T>>> on_all(const std::shared_ptr<Backend>& backend, Duration limit, F task) {
  std::vector<std::function<Result<T>()>> tasks;
  for (size_t i = 0; i < backend->devices().size(); ++i) {
    // Each holds the backend: a thread that is left behind must not lose it.
    tasks.emplace_back([backend, task, i] { return task(*backend, i); });
  }
  return run_within<T>(limit, std::move(tasks));
}

}  // namespace

Status Settings::validate() const {
  if (time <= Duration(0) || limit < 2 * time) {
    return Error(Code::kInvalidArgument, "a test's limit must be at least twice its time, and both above 0");
  }
  if (!(memory_share > 0 && memory_share <= 1)) {
    return Error(Code::kInvalidArgument, "the share of memory must be above 0 and at most 1");
  }
  for (const std::string& test : tests) {
    if (!Settings{}.tests.contains(test)) {
      return Error(Code::kInvalidArgument, "'" + test + "' is none of: memory, burn, host, collective, efa, disk");
    }
  }
  return {};
}

bool reaches(CheckTest& test, std::string name, std::string unit, double value, std::optional<double> least) {
  const bool enough = !least || value >= *least;
  if (!enough)
    fail(test,
         name + " is " + number(value) + (unit.empty() ? "" : " " + unit) + ", expected at least " + number(*least));
  test.figures.push_back({std::move(name), std::move(unit), value, least});
  return enough;
}

bool Suite::memory(std::vector<CheckTest>& out) {
  bool hangs = false;
  const auto start = std::chrono::steady_clock::now();
  const auto results =
      on_all<MemoryOutcome>(backend_, settings_.limit, [s = settings_](Backend& backend, size_t device) {
        return backend.memory(device, s.memory_share, s.time, s.seed);
      });
  for (size_t i = 0; i < results.size(); ++i) {
    CheckTest test = begin("memory", backend_->devices()[i].uuid);
    if (answered(test, results[i], settings_.limit, hangs)) {
      const MemoryOutcome& found = **results[i];
      test.figures.push_back({"covered", "GB", static_cast<double>(found.bytes) / kGiga, {}});
      test.figures.push_back({"passes", "", static_cast<double>(found.passes), {}});
      reaches(test, "bandwidth", "GB/s", found.copy_bandwidth / kGiga, settings_.expected.memory_bandwidth);
      if (found.wrong_words > 0) {
        fail(test, std::to_string(found.wrong_words) + " wrong words, the first at offset " + hex(found.first_wrong) +
                       ", bits " + hex(found.flipped_bits));
      }
    }
    test.seconds = since(start);
    out.push_back(std::move(test));
  }
  return hangs;
}

bool Suite::burn(std::vector<CheckTest>& out) {
  bool hangs = false;
  const auto start = std::chrono::steady_clock::now();
  const auto results = on_all<BurnOutcome>(backend_, settings_.limit, [s = settings_](Backend& backend, size_t device) {
    return backend.burn(device, s.time, s.seed);
  });
  std::vector<std::vector<uint64_t>> digests;
  for (const auto& result : results) {
    digests.push_back(result && result->ok() ? (*result)->digests : std::vector<uint64_t>());
  }
  const std::vector<Vote> votes = compare_burns(digests);
  for (size_t i = 0; i < results.size(); ++i) {
    CheckTest test = begin("burn", backend_->devices()[i].uuid);
    if (answered(test, results[i], settings_.limit, hangs)) {
      test.figures.push_back({"repetitions", "", static_cast<double>(digests[i].size()), {}});
      reaches(test, "rate", "TFLOP/s", (*results[i])->flops / kTera, settings_.expected.tensor_rate);
      if (!votes[i].good) fail(test, votes[i].message);
    }
    test.seconds = since(start);
    out.push_back(std::move(test));
  }
  return hangs;
}

bool Suite::host(std::vector<CheckTest>& out) {
  // One after the other: GPUs may share a PCIe switch, and what each can do alone is the question.
  for (size_t i = 0; i < backend_->devices().size(); ++i) {
    bool hangs = false;
    const auto start = std::chrono::steady_clock::now();
    CheckTest test = begin("host", backend_->devices()[i].uuid);
    const Duration time = settings_.time / static_cast<int64_t>(backend_->devices().size());
    const auto results = run_within<HostOutcome>(
        settings_.limit,
        {[backend = backend_, i, time, seed = settings_.seed] { return backend->host(i, time, seed); }});
    if (answered(test, results[0], settings_.limit, hangs)) {
      const HostOutcome& found = **results[0];
      reaches(test, "to_device", "GB/s", found.to_device / kGiga, settings_.expected.host_bandwidth);
      reaches(test, "from_device", "GB/s", found.from_device / kGiga, settings_.expected.host_bandwidth);
      if (found.wrong_bytes > 0) fail(test, std::to_string(found.wrong_bytes) + " bytes came back as others");
    }
    test.seconds = since(start);
    out.push_back(std::move(test));
    if (hangs) return true;
  }
  return false;
}

bool Suite::collective(std::vector<CheckTest>& out) {
  if (backend_->devices().size() < 2) {
    out.push_back(skipped("collective", "one GPU has nobody to talk to"));
    return false;
  }
  bool hangs = false;
  const auto start = std::chrono::steady_clock::now();
  CheckTest test = begin("collective");
  const auto results = run_within<CollectiveOutcome>(
      settings_.limit, {[backend = backend_, s = settings_] { return backend->all_reduce(s.time, s.seed); }});
  if (answered(test, results[0], settings_.limit, hangs)) {
    const CollectiveOutcome& found = **results[0];
    reaches(test, "bus_bandwidth", "GB/s", found.bus_bandwidth / kGiga, settings_.expected.collective_bandwidth);
    if (found.wrong_elements > 0) fail(test, std::to_string(found.wrong_elements) + " elements of the sum are wrong");
  }
  test.seconds = since(start);
  out.push_back(std::move(test));
  return hangs;
}

Suite::Outcome Suite::run(const std::vector<OtherTest>& others, const std::function<void(const std::string&)>& say) {
  Outcome outcome;
  if (backend_) {
    const size_t there = backend_->devices().size();
    if (there < settings_.expected.gpus) {
      CheckTest test = begin("count");
      fail(test, std::to_string(there) + " GPUs, the instance type has " + std::to_string(settings_.expected.gpus));
      outcome.tests.push_back(std::move(test));
    }
    constexpr std::pair<const char*, bool (Suite::*)(std::vector<CheckTest>&)> kTests[] = {
        {"memory", &Suite::memory}, {"host", &Suite::host}, {"collective", &Suite::collective}, {"burn", &Suite::burn}};
    for (const auto& [name, test] : kTests) {
      if (!settings_.tests.contains(name)) continue;
      say(std::string(name) + " on " + std::to_string(there) + (there == 1 ? " device" : " devices"));
      outcome.hangs = (this->*test)(outcome.tests);
      if (outcome.hangs) return outcome;
    }
  }
  for (const OtherTest& other : others) {
    if (!settings_.tests.contains(other.name)) continue;
    say(other.name);
    const auto results = run_within<std::vector<CheckTest>>(
        settings_.limit, {[run = other.run]() -> Result<std::vector<CheckTest>> { return run(); }});
    if (!results[0]) {
      CheckTest test = begin(other.name.c_str());
      fail(test, "did not end within " + pitcrew::to_string(settings_.limit));
      outcome.tests.push_back(std::move(test));
      outcome.hangs = true;
      return outcome;
    }
    outcome.tests.insert(outcome.tests.end(), (*results[0])->begin(), (*results[0])->end());
  }
  return outcome;
}

}  // namespace pitcrew::check
