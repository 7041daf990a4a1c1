#include <cstdlib>
#include <iostream>

#include <CLI/CLI.hpp>
#include <signal.h>
#include <unistd.h>

#include "agent/app/agent.hpp"
#include "agent/app/once.hpp"
#include "agent/app/uninstall.hpp"
#include "lib/base/config_file.hpp"
#include "lib/base/file.hpp"
#include "lib/base/version.hpp"
#include "lib/kube/http/http_transport.hpp"
#include "lib/net/crypto.hpp"

namespace {

using namespace pitcrew;

constexpr uint64_t kConfigLimit = 1 << 20;

struct Flags {
  std::string config;
  std::string node;
  std::string ns;
  std::string kernel_log;
  std::string kubeconfig;
  std::string context;
  std::string log_level;
  bool once = false;
  bool take_back = false;
  std::string daemon_set;
  std::string pods;
};

Result<agent::AgentConfig> read_config(const Flags& flags) {
  agent::AgentConfig config;
  if (!flags.config.empty()) {
    PITCREW_ASSIGN(const std::string text, read_file(posix_file_system(), flags.config, kConfigLimit));
    PITCREW_ASSIGN(config, agent::parse_config(text, flags.config));
  }
  if (!flags.kernel_log.empty()) config.kernel_log = flags.kernel_log;
  if (!flags.log_level.empty()) {
    PITCREW_ASSIGN(config.log_level, parse_log_level(flags.log_level));
  }
  PITCREW_TRY(agent::validate(config));
  return config;
}

// Null where there is no way to the API server; the log says why.
std::unique_ptr<kube::Transport> connect(net::AsioLoop& loop, const Flags& flags, const Logger& log) {
  const auto cluster = kube::default_cluster(flags.kubeconfig, flags.context);
  auto transport = cluster ? kube::connect(loop, *cluster, {}, log) : cluster.error();
  if (transport) return *std::move(transport);
  log.error("no way to the API server", {{"error", transport.error().message}});
  return nullptr;
}

// What the chart's pre-delete hook runs.
int uninstall(const Flags& flags) {
  const Logger log = Logger::to_stderr(LogFormat::kPlain, LogLevel::kWarning).with({{"program", "pitcrew-agent"}});
  net::AsioLoop loop;
  const auto transport = connect(loop, flags, log);
  if (!transport) return agent::kExitBadConfiguration;
  agent::TakeBackSettings settings;
  settings.ns = !flags.ns.empty() ? flags.ns : environment_or("POD_NAMESPACE", "pitcrew-system");
  settings.daemon_set = flags.daemon_set;
  settings.pods = flags.pods;
  return agent::take_back_and_tell(loop, *transport, net::random_seed(), settings, log, std::cout);
}

int run(const Flags& flags) {
  const auto config = read_config(flags);
  if (!config) {
    std::cerr << config.error().message << "\n";
    return agent::kExitBadConfiguration;
  }
  if (flags.once) return agent::look_once(*config, RealClock(), std::cout);
  signal(SIGPIPE, SIG_IGN);
  agent::AgentPlace place;
  place.node = !flags.node.empty() ? flags.node : environment_or("NODE_NAME", "");
  const Logger log = Logger::to_stderr(config->log_format, config->log_level)
                         .with({{"program", "pitcrew-agent"}, {"node", place.node}});
  if (place.node.empty()) {
    log.error("NODE_NAME is not set; set it from spec.nodeName in the pod's environment, or give --node");
    return agent::kExitBadConfiguration;
  }
  log.info("starting", {{"version", version()}});

  net::AsioLoop loop;
  const auto transport = connect(loop, flags, log);
  if (!transport) return agent::kExitBadConfiguration;
  place.ns = !flags.ns.empty() ? flags.ns : environment_or("POD_NAMESPACE", place.ns);
  agent::Agent agent(loop, *transport, *config, place, {}, Random(net::random_seed()), log);
  auto signals = loop.on_signal({SIGTERM, SIGINT}, [&agent](int) { agent.stop(); });
  if (!signals) {
    log.error("signals can't be heard", {{"error", signals.error().message}});
    return agent::kExitFailed;
  }
  if (const Status started = agent.start(); !started) {
    log.error("the agent can't start", {{"error", started.error().message}});
    return agent::kExitFailed;
  }
  while (!agent.exit_code()) loop.run();
  // At once: a probe may hang in a driver's call, and nobody can end its thread but the end of the process.
  std::_Exit(*agent.exit_code());
}

}  // namespace

int main(int argc, char** argv) {
  Flags flags;
  CLI::App app{"pitcrew-agent finds bad GPUs, network devices and nodes, says why, and keeps pods away from them."};
  app.footer(
      "In a pod it finds its cluster by itself; NODE_NAME and POD_NAMESPACE come from the downward API.\n"
      "On a machine without a cluster: pitcrew-agent --once.\n\n"
      "Exit codes: 0 stopped (with --once: no fault), 1 failed (with --once: a fault), 2 bad configuration.");
  app.set_version_flag("--version", "pitcrew-agent " + pitcrew::version());
  app.add_flag("--once", flags.once, "Look at this machine, print what is seen and what it means, and end");
  app.add_flag(
      "--take-back", flags.take_back,
      "Take agents' label, taint, annotation, condition and cordon from every node, and end: for an uninstall");
  app.add_option("--daemon-set", flags.daemon_set, "With --take-back: the agents' DaemonSet, which is deleted first");
  app.add_option("--pods", flags.pods, "With --take-back: the label selector of its pods, which are waited for");
  app.add_option("--config", flags.config, "The configuration file (docs/agent.md lists its keys)");
  app.add_option("--node", flags.node, "The node's name (default: NODE_NAME)");
  app.add_option("--namespace", flags.ns, "Of the agent's DaemonSet (default: the pod's own)");
  app.add_option("--kernel-log", flags.kernel_log,
                 "syslog, kmsg, none, or a file's or pipe's path; over the file's kernelLog");
  app.add_option("--kubeconfig", flags.kubeconfig, "A kubeconfig file (default: the pod's service account)");
  app.add_option("--context", flags.context, "A context of the kubeconfig (default: its current one)");
  app.add_option("--log-level", flags.log_level, "debug, info, warning or error; over the file's logLevel");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : pitcrew::agent::kExitBadConfiguration;
  }
  return flags.take_back ? uninstall(flags) : run(flags);
}
