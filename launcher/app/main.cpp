#include <csignal>
#include <cstdio>
#include <string>
#include <vector>

#include <malloc.h>
#include <openssl/crypto.h>
#include <unistd.h>

#include "launcher/app/copy_self.hpp"
#include "launcher/app/launcher.hpp"
#include "lib/api/launcher_contract.hpp"
#include "lib/base/version.hpp"
#include "lib/net/crypto.hpp"

extern char** environ;

namespace {

constexpr char kHelp[] =
    "pitcrew-launcher starts, watches and restarts the ranks of a TrainingJob inside its pod.\n"
    "\n"
    "  pitcrew-launcher run -- COMMAND…   as a training container's command; the operator sets it, with the "
    "environment it needs\n"
    "  pitcrew-launcher copy DEST         puts this program at DEST, a file or a folder (the init container does it)\n"
    "  pitcrew-launcher --version\n"
    "  pitcrew-launcher --help\n"
    "\n"
    "Exit codes of `run`: 0 the job finished, 1 it failed, 78 something that the operator provides is missing, 143 "
    "ended from\n"
    "outside by SIGTERM. What a training program may use is described in docs/training-programs.md.\n";

int run(std::vector<std::string> command) {
  using namespace pitcrew;
  // Copies take large buffers for a short time: they go back to the system at once, and threads share one arena.
  mallopt(M_MMAP_THRESHOLD, 64 * 1024);
  mallopt(M_TRIM_THRESHOLD, 256 * 1024);
  mallopt(M_ARENA_MAX, 1);
  // The image's openssl.cnf may name providers to load: shared libraries that a static program can't use.
  OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, nullptr);
  signal(SIGPIPE, SIG_IGN);

  auto log =
      Logger::to_stderr(isatty(2) != 0 ? LogFormat::kPlain : LogFormat::kJson).with({{"program", "pitcrew-launcher"}});
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) environment.emplace_back(*entry);
  auto contract = launcher::read_contract(std::move(command), std::move(environment));
  if (!contract) {
    log.error("the pod lacks what a launcher needs", {{"error", contract.error().message}});
    return api::launcher::kExitBadContract;
  }
  log = log.with({{"namespace", contract->pod_namespace}, {"pod", contract->pod_name}, {"jobUID", contract->job_uid}});
  net::AsioLoop loop;
  auto launcher = launcher::Launcher::create(loop, *std::move(contract), {}, net::random_seed(), log);
  if (!launcher) {
    log.error("the launcher can't start", {{"error", launcher.error().message}});
    return api::launcher::kExitBadContract;
  }
  log.info("started", {{"version", version()}});
  return (*launcher)->run();
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const std::string verb = arguments.empty() ? "" : arguments[0];
  if (verb == "--help" || verb == "-h") {
    fputs(kHelp, stdout);
    return 0;
  }
  if (verb == "--version") {
    printf("pitcrew-launcher %s\n", pitcrew::version().c_str());
    return 0;
  }
  if (verb == "copy" && arguments.size() == 2) {
    if (const auto copied = pitcrew::launcher::copy_self(arguments[1]); !copied) {
      fprintf(stderr, "pitcrew-launcher: %s\n", copied.error().message.c_str());
      return 1;
    }
    return 0;
  }
  if (verb == "run" && arguments.size() > 2 && arguments[1] == "--")
    return run({arguments.begin() + 2, arguments.end()});
  fputs(kHelp, stderr);
  return pitcrew::api::launcher::kExitBadContract;
}
