#include <algorithm>
#include <filesystem>
#include <iostream>

#include <CLI/CLI.hpp>

#include "cli/commands.hpp"
#include "cli/connect/exit_code.hpp"
#include "cli/connect/leading_flags.hpp"
#include "cli/health/health.hpp"
#include "cli/validate/validate.hpp"
#include "lib/base/version.hpp"
#ifdef PITCREW_HAS_RUN
#include "cli/run/run.hpp"
#endif

int main(int argc, char** argv) {
  CLI::App app{"Pitcrew keeps GPU training running on Kubernetes."};
  // kubectl runs plugins by their file names: kubectl-pitcrew, and kubectl_complete-pitcrew for its completions.
  const std::string called = argc > 0 ? std::filesystem::path(argv[0]).filename().string() : "pitcrew";
  app.name(called == "kubectl-pitcrew" ? "kubectl pitcrew" : "pitcrew");
  app.set_version_flag("--version", "pitcrew " + pitcrew::version());
  app.require_subcommand(1);
  int code = 0;

  std::vector<std::string> files;
  CLI::App* validate =
      app.add_subcommand("validate", "Check TrainingJob manifests and print everything that is wrong with them");
  validate->add_option("file", files, "Manifests; - is standard input")->required();
  validate->callback([&] { code = pitcrew::cli::validate_files(files, std::cout, std::cerr); });

  pitcrew::cli::HealthOptions health_options;
  std::string what, number;
  CLI::App* health = app.add_subcommand("health", "What follows which fault of a GPU or node, and why");
  health->require_subcommand(1);
  health->add_option("--policy", health_options.policy, "A HealthPolicy's file, laid over the built-in policy");
  CLI::App* explain = health->add_subcommand("explain", "What would follow, and why: pitcrew health explain XID 94");
  explain->add_option("what", what, "XID or SXID")->required();
  explain->add_option("code", number, "Its number")->required();
  explain->callback([&] { code = pitcrew::cli::explain_health(what, number, health_options, std::cout, std::cerr); });
  health->add_subcommand("table", "Every XID, what others do about it and why ours differs, as Markdown")
      ->callback([&] { code = pitcrew::cli::print_health_table(health_options, std::cout, std::cerr); });
  health->add_subcommand("policy", "The policy as it counts")->callback([&] {
    code = pitcrew::cli::print_health_policy(health_options, std::cout, std::cerr);
  });

#ifdef PITCREW_HAS_RUN
  pitcrew::cli::add_run(app, code);
#endif

  pitcrew::cli::add_cluster_commands(app, code);
  app.footer("Most often: pitcrew status JOB, and where it doesn't train: pitcrew diagnose JOB.");

  std::vector<std::string> words(argv + (argc > 0 ? 1 : 0), argv + argc);
  if (called == "kubectl_complete-pitcrew") {
    code = pitcrew::cli::print_completions(app, words);
    std::cout << ":4\n";  // kubectl's directive: no file names
    return code;
  }
  // Not CLI11's: what is being typed may look like flags of this command.
  if (words.size() >= 2 && words[0] == "complete" && words[1] == "--")
    return pitcrew::cli::print_completions(app, {words.begin() + 2, words.end()});
  words = pitcrew::cli::with_flags_behind(std::move(words));
  std::reverse(words.begin(), words.end());  // as CLI11 takes them
  try {
    app.parse(words);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : pitcrew::cli::kExitBadInput;
  }
  return code;
}
