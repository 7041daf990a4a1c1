#pragma once

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "agent/check/suite/backend.hpp"
#include "agent/check/suite/expectations.hpp"
#include "lib/api/check_report.hpp"

namespace pitcrew::check {

struct Settings {
  std::set<std::string> tests = {"memory", "burn", "host", "collective", "efa", "disk"};
  Duration time = seconds(20);  // that each test takes, about
  Duration limit = minutes(5);  // after which a test counts as hanging
  double memory_share = 0.9;    // of the free memory
  uint64_t seed = 1;
  Expectations expected;

  Status validate() const;
};

// A test that is not about a backend's devices: EFA, disks.
struct OtherTest {
  std::string name;
  std::function<std::vector<api::CheckTest>()> run;
};

// Runs the tests one after the other, those about devices on all devices at once, and says how each came out. A test
// that does not end within its limit is a failure of the hardware it is about, and the last one: what hangs in a driver
// can't be ended, so the caller has to leave the process by _exit.
//
// One thread calls run(); each device's test has a thread of its own.
class Suite {
 public:
  struct Outcome {
    std::vector<api::CheckTest> tests;
    bool hangs = false;  // threads are left behind
  };
  Suite(std::shared_ptr<Backend> backend, Settings settings)
      : backend_(std::move(backend)), settings_(std::move(settings)) {}

  // `backend` may be null: then only the others run. `say` is told what is being done, for people.
  Outcome run(const std::vector<OtherTest>& others, const std::function<void(const std::string&)>& say);

 private:
  bool memory(std::vector<api::CheckTest>& out);
  bool burn(std::vector<api::CheckTest>& out);
  bool host(std::vector<api::CheckTest>& out);
  bool collective(std::vector<api::CheckTest>& out);

  std::shared_ptr<Backend> backend_;
  Settings settings_;
};

// A figure beside what it must reach; false where it falls short, with a message.
bool reaches(api::CheckTest& test, std::string name, std::string unit, double value, std::optional<double> least);

}  // namespace pitcrew::check
