#include "agent/check/app/check.hpp"

#include <algorithm>
#include <fstream>
#include <ostream>

#include "agent/check/cpu/cpu_backend.hpp"
#include "agent/check/disk/disk.hpp"
#include "agent/check/efa/pingpong.hpp"
#include "agent/check/gpu/gpu_backend.hpp"
#include "agent/check/suite/table.hpp"

namespace pitcrew::check {
namespace {

constexpr size_t kTerminationMessage = 4096;  // what Kubernetes keeps of it

Result<std::shared_ptr<Backend>> open_backend(const Options& options) {
  if (options.backend == "none") return std::shared_ptr<Backend>();
  if (options.backend == "cpu") {
    CpuSettings settings;
    settings.devices = options.threads;
    settings.memory_bytes = options.thread_memory;
    PITCREW_ASSIGN(auto backend, make_cpu_backend(std::move(settings)));
    return std::shared_ptr<Backend>(std::move(backend));
  }
  if (options.backend != "cuda") {
    return Error(Code::kInvalidArgument, "the backend '" + options.backend + "' is none of: cuda, cpu, none");
  }
  PITCREW_ASSIGN(auto backend, open_gpu_backend(options.cuda_library));
  return std::shared_ptr<Backend>(std::move(backend));
}

std::vector<OtherTest> other_tests(const Options& options, const Expectations& expected) {
  std::vector<OtherTest> tests;
  EfaSettings efa;
  efa.folders.insert(efa.folders.begin(), options.efa_folders.begin(), options.efa_folders.end());
  // A whole machine's devices take turns; together they stay within the limit of one test.
  const unsigned devices = std::max(1u, expected.efa_devices);
  efa.timeout = std::min<Duration>(seconds(60), options.settings.limit / (2 * devices));
  tests.push_back({"efa", [efa, expected] { return check_efa(efa, expected); }});
  tests.push_back(
      {"disk", [folders = options.disks, bytes = options.disk_bytes, seed = options.settings.seed, expected] {
         std::vector<api::CheckTest> found;
         for (const std::string& folder : folders) found.push_back(check_disk({folder, bytes, seed}, expected));
         return found;
       }});
  return tests;
}

bool write_file(const std::string& path, const std::string& text, std::ostream& err) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.flush();
  if (file) return true;
  err << "pitcrew-check: writing " << path << " failed; the result is on standard output\n";
  return false;
}

}  // namespace

Done run_check(const Options& options, const Clock& clock, std::ostream& out, std::ostream& err) {
  const Instant begin = clock.now();
  const auto refuse = [&](const Error& error) {
    err << "pitcrew-check: " << error.message << "\n";
    return Done{kWrongUse, false};
  };
  if (const Status valid = options.settings.validate(); !valid.ok()) return refuse(valid.error());

  api::CheckReport report;
  report.id = options.id;
  report.node = options.node;
  report.instance = options.instance;
  report.backend = options.backend;
  auto backend = open_backend(options);
  if (!backend && backend.error().code == Code::kInvalidArgument) return refuse(backend.error());

  // Threads in place of GPUs are compared with nothing that GPUs should reach.
  const bool gpus = options.backend == "cuda";
  const bool there = backend.ok() && *backend != nullptr;
  const std::string model = there ? (*backend)->devices()[0].model : "";
  Settings settings = options.settings;
  settings.expected = expectations_of(model, gpus ? agent::find_instance_type(options.instance) : nullptr);
  for (const std::string& assignment : options.expect) {
    if (const Status set = settings.expected.set(assignment); !set.ok()) return refuse(set.error());
  }
  if (there) {
    for (const Device& device : (*backend)->devices()) report.devices.push_back(device.uuid);
  } else if (!backend) {
    report.tests.push_back({"gpu", "", api::CheckOutcome::kUnknown, backend.error().message, 0, {}});
  }
  Suite::Outcome outcome = Suite(backend ? *backend : nullptr, settings)
                               .run(other_tests(options, settings.expected), [&](const std::string& what) {
                                 err << "pitcrew-check: " << what << " ..." << std::endl;
                               });
  std::move(outcome.tests.begin(), outcome.tests.end(), std::back_inserter(report.tests));
  report.time = clock.now();
  report.seconds = to_seconds(report.time - begin);

  const std::string document = report.encode().dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  out << (options.json == "-" ? document : to_table(report)) << std::flush;
  if (!options.json.empty() && options.json != "-") write_file(options.json, document, err);
  if (!options.termination_log.empty()) {
    write_file(options.termination_log, report.encode_within(kTerminationMessage), err);
  }
  const api::CheckOutcome came = report.outcome();
  const int code = came == api::CheckOutcome::kPassed   ? kPassed
                   : came == api::CheckOutcome::kFailed ? kFailed
                                                        : kUnknown;
  return {code, outcome.hangs};
}

}  // namespace pitcrew::check
