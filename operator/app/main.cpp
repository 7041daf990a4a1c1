#include <cstdlib>
#include <iostream>

#include <CLI/CLI.hpp>
#include <signal.h>
#include <unistd.h>

#include "lib/base/config_file.hpp"
#include "lib/base/file.hpp"
#include "lib/base/version.hpp"
#include "lib/kube/cpprest/cpprest_transport.hpp"
#include "lib/net/crypto.hpp"
#include "operator/app/program.hpp"

namespace {

using namespace pitcrew;

constexpr uint64_t kConfigLimit = 1 << 20;

struct Flags {
  std::string config;
  std::string ns;
  std::string kubeconfig;
  std::string context;
  std::string log_level;
};

Result<control::OperatorConfig> read_config(const Flags& flags) {
  PITCREW_ASSIGN(const std::string text, read_file(posix_file_system(), flags.config, kConfigLimit));
  PITCREW_ASSIGN(auto config, control::parse_config(text, flags.config));
  if (!flags.log_level.empty()) {
    PITCREW_ASSIGN(config.log_level, parse_log_level(flags.log_level));
  }
  return config;
}

Result<std::unique_ptr<kube::Transport>> connect(net::AsioLoop& loop, const Result<kube::ClusterConfig>& cluster,
                                                 control::OperatorConfig::Calls calls, const Logger& log) {
  if (!cluster) return cluster.error();
  if (calls == control::OperatorConfig::Calls::kBeast) return kube::connect(loop, *cluster, {}, log);
  PITCREW_ASSIGN(std::unique_ptr<kube::Transport> made, kube::CpprestTransport::create(loop, *cluster, {}, log));
  return made;
}

int run(const Flags& flags) {
  const auto config = read_config(flags);
  if (!config) {
    std::cerr << config.error().message << "\n";
    return control::kExitBadConfiguration;
  }
  signal(SIGPIPE, SIG_IGN);
  const Logger log = Logger::to_stderr(config->log_format, config->log_level).with({{"program", "pitcrew-operator"}});
  log.info("starting", {{"version", version()}});

  net::AsioLoop loop;
  const auto cluster = kube::default_cluster(flags.kubeconfig, flags.context);
  const auto transport = connect(loop, cluster, config->api_calls, log);
  const auto lease = connect(loop, cluster, control::OperatorConfig::Calls::kBeast, log);
  if (!transport || !lease) {
    log.error("no way to the API server", {{"error", (!transport ? transport : lease).error().message}});
    return control::kExitBadConfiguration;
  }
  control::OperatorPlace place;
  place.ns =
      !flags.ns.empty() ? flags.ns : environment_or("POD_NAMESPACE", cluster->ns.empty() ? place.ns : cluster->ns);
  place.pod_ip = environment_or("POD_IP", "");
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  place.identity = environment_or("POD_NAME", host);

  Random random(net::random_seed());
  control::OperatorProgram program(loop, **transport, **lease, *config, place, {}, random.split(), log);
  auto signals = loop.on_signal({SIGTERM, SIGINT}, [&program](int) { program.stop(); });
  if (!signals) {
    log.error("signals can't be heard", {{"error", signals.error().message}});
    return control::kExitFailed;
  }
  if (const Status started = program.start(); !started) {
    log.error("the operator can't start", {{"error", started.error().message}});
    return started.error().code == Code::kInvalidArgument ? control::kExitBadConfiguration : control::kExitFailed;
  }
  while (!program.exit_code()) loop.run();
  return *program.exit_code();
}

}  // namespace

int main(int argc, char** argv) {
  Flags flags;
  CLI::App app{"pitcrew-operator reconciles TrainingJobs: it places, starts, watches and recovers their gangs."};
  app.footer(
      "In a pod it finds its cluster by itself; POD_NAME, POD_NAMESPACE and POD_IP come from the downward API.\n"
      "Two or more replicas elect a leader; the others stand by with warm caches.\n\n"
      "Exit codes: 0 stopped, 1 failed, 2 bad configuration, 3 the lease is lost (start it again: it stands by then).");
  app.set_version_flag("--version", "pitcrew-operator " + pitcrew::version());
  app.add_option("--config", flags.config, "The configuration file (docs/operator.md lists its keys)")->required();
  app.add_option("--namespace", flags.ns, "Of the lease, the Secrets and the Service (default: the pod's own)");
  app.add_option("--kubeconfig", flags.kubeconfig, "A kubeconfig file (default: the pod's service account)");
  app.add_option("--context", flags.context, "A context of the kubeconfig (default: its current one)");
  app.add_option("--log-level", flags.log_level, "debug, info, warning or error; over the file's logLevel");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : control::kExitBadConfiguration;
  }
  return run(flags);
}
