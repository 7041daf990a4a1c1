#include <iostream>
#include <sstream>

#include <CLI/CLI.hpp>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "lib/base/version.hpp"
#include "lib/kube/config/cluster_config.hpp"
#include "lib/kube/http/http_transport.hpp"
#include "lib/net/crypto.hpp"
#include "tests/bench/operator/swarm/swarm.hpp"

namespace {

using namespace pitcrew;

constexpr size_t kLongestCommand = 4096;

void tell(const net::AsioLoop& loop, const char* event, Json words) {
  words["event"] = event;
  words["time"] = to_seconds(loop.now().since_epoch());
  std::cout << words.dump() << std::endl;
}

// One line of standard input: `fail COUNT`, `crash`, `look`.
void obey(const net::AsioLoop& loop, swarm::Swarm& swarm, const std::string& line) {
  std::istringstream words(line);
  std::string verb;
  size_t count = 0;
  words >> verb >> count;
  const Instant begin = loop.now();
  if (verb == "fail" && count > 0) {
    const auto names = swarm.fail(count);
    tell(loop, "failed", {{"pods", names}, {"begin", to_seconds(begin.since_epoch())}});
  } else if (verb == "crash") {
    tell(loop, "crashed", {{"pod", swarm.crash()}, {"begin", to_seconds(begin.since_epoch())}});
  } else if (verb == "look") {
    tell(loop, "census", swarm::to_json(swarm.census()));
  } else {
    tell(loop, "error", {{"message", "unknown command '" + line + "'; there are: fail COUNT, crash, look"}});
  }
}

int run(const swarm::SwarmSettings& settings, const std::string& kubeconfig) {
  signal(SIGPIPE, SIG_IGN);
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  const Logger log = Logger::to_stderr(LogFormat::kPlain, LogLevel::kInfo);
  net::AsioLoop loop;
  const auto cluster = kube::default_cluster(kubeconfig);
  kube::HttpTransportSettings http;
  http.user_agent = "pitcrew-swarm/" + version();
  const auto transport = cluster ? kube::connect(loop, *cluster, http, log) : cluster.error();
  if (!transport) {
    log.error("no way to the API server", {{"error", transport.error().message}});
    return 2;
  }
  swarm::Swarm swarm(
      loop, **transport, settings, net::random_seed(),
      [&loop](const swarm::Census& census) { tell(loop, "census", swarm::to_json(census)); }, log);
  std::string pending;
  const auto input = loop.watch_fd(STDIN_FILENO, net::AsioLoop::Ready::kRead, [&] {
    char buffer[kLongestCommand];
    const ssize_t got = read(STDIN_FILENO, buffer, sizeof buffer);
    if (got <= 0) return loop.stop();
    pending.append(buffer, static_cast<size_t>(got));
    for (size_t end; (end = pending.find('\n')) != std::string::npos; pending.erase(0, end + 1)) {
      obey(loop, swarm, pending.substr(0, end));
    }
    if (pending.size() > kLongestCommand) loop.stop();
  });
  const auto signals = loop.on_signal({SIGTERM, SIGINT}, [&loop](int) { loop.stop(); });
  if (!input || !signals) {
    log.error("commands can't be heard", {{"error", (!input ? input : signals).error().message}});
    return 1;
  }
  swarm.start();
  loop.run();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  swarm::SwarmSettings settings;
  std::string kubeconfig;
  CLI::App app{
      "pitcrew-swarm plays the launchers of all pods of a namespace: the real control channel, and nothing behind it."};
  app.footer(
      "Writes a JSON object a line: what it counts, as that changes. Obeys lines on standard input, and ends with it:\n"
      "  fail COUNT   the processes of so many running pods end; the pods fail by kwok's stage\n"
      "  crash        a rank of one pod ends by SIGSEGV; its pod stays\n"
      "  look         say now what is counted");
  app.add_option("--kubeconfig", kubeconfig, "A kubeconfig that may do all");
  app.add_option("--namespace", settings.ns, "Of the pods")->required();
  app.add_option("--service-account", settings.service_account, "That the pods run as");
  app.add_option("--channel-namespace", settings.channel_ns, "Of the operator's Service");
  app.add_option("--channel-service", settings.channel_service, "The operator's Service");
  app.add_option("--dial-host", settings.dial_host, "Where operators listen, whatever they advertise; empty: there");
  CLI11_PARSE(app, argc, argv);
  return run(settings, kubeconfig);
}
