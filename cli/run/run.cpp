#include "cli/run/run.hpp"

#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>

#include <CLI/CLI.hpp>
#include <unistd.h>

#include "cli/run/chaos.hpp"
#include "cli/run/guard.hpp"
#include "cli/run/options.hpp"
#include "cli/run/run_folder.hpp"
#include "cli/run/session.hpp"
#include "cli/validate/validate.hpp"
#include "lib/base/yaml.hpp"
#include "lib/local/node/node_shim.hpp"
#include "lib/local/node/pod_files.hpp"

namespace pitcrew::cli {
namespace {

// The one TrainingJob of the manifest, or everything that is wrong with it, on standard error.
std::optional<api::TrainingJob> read_job(const std::string& file) {
  std::ifstream in(file);
  std::stringstream text;
  text << in.rdbuf();
  if (!in) {
    std::cerr << file << ": can't be read; check the path and its permissions\n";
    return std::nullopt;
  }
  std::vector<FileProblem> found = check_manifest(text.str());
  std::optional<api::TrainingJob> job;
  const auto documents = parse_yaml(text.str());
  for (size_t i = 0; found.empty() && i < documents->size(); ++i) {
    const YamlDocument& document = (*documents)[i];
    Problems problems;
    if (document.json.value("kind", "") != "TrainingJob") continue;
    if (job) {
      found.push_back({document.line_of(""), "", "a second TrainingJob; pitcrew run takes one at a time"});
      break;
    }
    job = api::decode_training_job(document.json, problems);
    for (const Problem& problem : local::check_runnable_locally(job->spec.pod_template)) {
      const std::string path =
          problem.path.starts_with("spec.template") ? problem.path : "spec.template." + problem.path;
      found.push_back({document.line_of(path), path, problem.message});
    }
  }
  for (const FileProblem& problem : found) {
    std::cerr << file << ":" << problem.line << ": " << (problem.path.empty() ? "" : problem.path + ": ")
              << problem.message << "\n";
  }
  if (!found.empty()) return std::nullopt;
  if (job->metadata.ns.empty()) job->metadata.ns = "default";
  return job;
}

// DIR/steps.jsonl leads to the file that rank 0 writes beside the checkpoints: the claim's folder, and what of
// checkpoint.path lies below its mount.
void link_steps(const RunFolder& folder, const api::TrainingJob& job) {
  namespace fs = std::filesystem;
  std::error_code error;
  if (!job.spec.checkpoint || fs::exists(fs::symlink_status(folder.steps(), error))) return;
  const Json& pod = job.spec.pod_template.at("spec");
  for (const Json& container : pod.at("containers")) {
    for (const Json& mount : container.value("volumeMounts", Json::array())) {
      const std::string at = mount.value("mountPath", "");
      if (at.empty() || !job.spec.checkpoint->path.starts_with(at)) continue;
      for (const Json& volume : pod.value("volumes", Json::array())) {
        if (volume.value("name", "") != mount.value("name", "-") || !volume.contains("persistentVolumeClaim")) continue;
        const std::string claim = volume["persistentVolumeClaim"].value("claimName", "");
        fs::create_symlink("volumes/" + claim + job.spec.checkpoint->path.substr(at.size()) + "/steps.jsonl",
                           folder.steps(), error);
        return;
      }
    }
  }
}

int run_job(RunOptions options) {
  auto chaos = ChaosPlan::parse(options.chaos);
  if (!chaos) {
    std::cerr << chaos.error().message << "\n";
    return 2;
  }
  std::optional<api::TrainingJob> job = read_job(options.manifest);
  if (!job) return 2;
  if (options.nodes == 0) options.nodes = job->spec.replicas + job->spec.spares + 1;
  if (options.folder.empty()) options.folder = ".pitcrew/" + job->metadata.name;
  auto folder = RunFolder::open(options.folder);
  if (!folder) {
    std::cerr << folder.error().message << "\n";
    return folder.error().code == Code::kAlreadyExists ? 3 : 2;
  }
  link_steps(*folder, *job);

  net::AsioLoop loop;
  const std::unique_ptr<View> view =
      options.json ? make_json_view(stdout) : make_text_view(stdout, isatty(STDOUT_FILENO) != 0, loop.now());
  int code = 1;
  {
    const Guard guard(loop, folder->run_id(), folder->memory());
    Session session(loop, options, *folder, *job, *std::move(chaos), *view,
                    Logger::to_file(folder->logs() + "/operator.log", LogFormat::kJson));
    const Result<int> result = session.run();
    if (!result) {
      std::cerr << "error: " << result.error().message << "\n";
      return 2;
    }
    code = *result;
    const Json report = session.report();
    if (!options.json) std::cout << session.recoveries_for_people();
    if (!options.report.empty()) {
      std::ofstream out(options.report);
      out << report.dump(2) << "\n";
      if (!out.flush()) {
        std::cerr << "the report can't be written to " << options.report << "; check the path\n";
        return 2;
      }
    }
  }
  return code;
}

}  // namespace

void add_run(CLI::App& app, int& code) {
  auto options = std::make_shared<RunOptions>();
  CLI::App* run = app.add_subcommand(
      "run", "Run a TrainingJob on this machine, on simulated nodes, with the operator that runs it on a cluster");
  run->footer(
      "The manifest is the one that kubectl apply takes. No image is pulled: command must exist here, and "
      "pitcrew-train is found beside\n"
      "pitcrew. Volumes are folders below --dir. Ctrl-C saves and stops; the same command goes on.\n\n"
      "Exit codes: 0 succeeded (or saved and stopped), 1 the job failed, 2 bad input, 3 the folder is in use, 130 "
      "stopped unsaved.");
  run->add_option("manifest", options->manifest, "A file with one TrainingJob")->required()->check(CLI::ExistingFile);
  run->add_option("--nodes", options->nodes, "Simulated nodes (default: one for each replica and spare, and one more)")
      ->check(CLI::Range(1u, 64u));
  run->add_option("--dir", options->folder, "Where everything of the run is kept (default: .pitcrew/<job>)");
  run->add_option("--chaos", options->chaos,
                  "Failures to make, by step: kill-node@60,kill-rank@120,hang@180,kill-launcher@240, or random:SEED");
  run->add_option("--report", options->report, "Write a report here as JSON");
  run->add_flag("--serve", options->serve,
                "Open the simulated cluster's API (DIR/kubeconfig) and the operator's metrics (DIR/metrics-address)");
  run->add_flag("--json", options->json, "Print events as JSON lines");
  run->callback([options, &code] { code = run_job(*options); });

  // What pitcrew run starts itself. Not for people.
  auto fd = std::make_shared<int>(-1);
  CLI::App* node = app.add_subcommand("run-node", "")->group("");
  node->add_option("fd", *fd)->required();
  node->callback([fd] { local::node_shim_main(*fd); });

  auto guard_arguments = std::make_shared<std::pair<std::string, std::string>>();
  CLI::App* guard = app.add_subcommand("run-guard", "")->group("");
  guard->add_option("fd", *fd)->required();
  guard->add_option("run", guard_arguments->first)->required();
  guard->add_option("memory", guard_arguments->second)->required();
  guard->callback(
      [fd, guard_arguments, &code] { code = guard_main(*fd, guard_arguments->first, guard_arguments->second); });
}

}  // namespace pitcrew::cli
