#include <iostream>

#include <CLI/CLI.hpp>

#include "cli/validate/validate.hpp"
#include "lib/base/version.hpp"
#ifdef PITCREW_HAS_RUN
#include "cli/run/run.hpp"
#endif

int main(int argc, char** argv) {
  CLI::App app{"Pitcrew keeps GPU training running on Kubernetes."};
  app.set_version_flag("--version", "pitcrew " + pitcrew::version());
  app.require_subcommand(1);
  int code = 0;

  std::vector<std::string> files;
  CLI::App* validate =
      app.add_subcommand("validate", "Check TrainingJob manifests and print everything that is wrong with them");
  validate->add_option("file", files, "Manifests; - is standard input")->required();
  validate->callback([&] { code = pitcrew::cli::validate_files(files, std::cout, std::cerr); });

#ifdef PITCREW_HAS_RUN
  pitcrew::cli::add_run(app, code);
#endif

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e);
  }
  return code;
}
