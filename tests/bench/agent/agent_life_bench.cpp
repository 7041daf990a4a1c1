// What the node agent costs a healthy machine with 8 GPUs and 32 EFA devices, at its default rates: memory, processor
// time, and what it asks of the API server. The real program, beside an API server of lib/local behind HTTP, with
// NVIDIA's library for tests and a sysfs of files whose counters move.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>

#include <CLI/CLI.hpp>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/app/testing/agent_process.hpp"
#include "lib/api/cordon_budget.hpp"
#include "lib/api/node_health.hpp"
#include "lib/kube/types/node.hpp"
#include "lib/local/http/http_api.hpp"

namespace {

using namespace pitcrew;

constexpr int kEfaDevices = 32;           // p5.48xlarge
constexpr double kMostMegabytes = 30;     // DESIGN, section 12
constexpr double kMostCoreShare = 0.002;  // of one core
constexpr Duration kStart = seconds(20);  // its start isn't counted: every probe has looked once then
constexpr Duration kHeartbeat = minutes(5);

// One machine with its cluster; the agent's process ends with it.
class Machine {
 public:
  Machine() : server_(loop_, {}) {
    for (const ResourceType& type : {api::NodeHealth::type(), api::HealthPolicy::type(), api::CordonBudget::type()})
      server_.register_type(type, {});
    server_.track_managers(kube::Node::type());
    auto served = local::HttpApi::serve(loop_, server_, {});
    if (!served) fail(served.error().message);
    api_ = *std::move(served);
    kube::Request node{.verb = kube::Verb::kCreate, .type = kube::Node::type()};
    node.body = kube::Payload::of(
        {{"metadata", {{"name", "n1"}, {"labels", {{"node.kubernetes.io/instance-type", "p5.48xlarge"}}}}},
         {"spec", {{"providerID", "aws:///us-east-2b/i-0a1"}}}});
    if (server_.handle(node).status != 201) fail("the Node could not be created");
    host_.file("proc/sys/kernel/random/boot_id", "boot-1");
    host_.file("proc/stat", "cpu 1 2 3\nbtime " + std::to_string(std::time(nullptr) - 600));
    host_.file("proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 900 kB");
    for (int i = 0; i < kEfaDevices; ++i) host_.efa_device(device(i));
    host_.file("faults.yaml", "{}");
    host_.file("kernel.txt", "<6>[  100.000001] eth0: link is up");
  }
  ~Machine() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  Machine(const Machine&) = delete;

  // `syslog`: by syslog(2), as in a cluster; else a file in which nothing happens.
  void start(const std::string& programs, bool syslog) {
    log_ = syslog ? "syslog" : host_.folder() + "/kernel.txt";
    host_.file("agent.yaml", "host: " + host_.folder() + "\nstate: " + host_.folder() + "/state\nkernelLog: " + log_ +
                                 "\nnvml: " PITCREW_FAKE_NVML "\nmetricsPort: 0\nhealthPort: 0\n");
    agent::write_kubeconfig(host_, api_->address().port);
    const std::string program = programs + "/pitcrew-agent";
    pid_ = agent::start_agent(program, host_, "p5");
    if (pid_ == 0) fail(program + " can't be started; build pitcrew-agent");
  }

  void live(Duration time) {
    const Instant end = loop_.now() + time;
    std::function<void()> work = [&] {
      bytes_ += 1'000'000'000;
      for (int i = 0; i < kEfaDevices; ++i) {
        host_.efa_counter(device(i), "tx_bytes", bytes_);
        host_.efa_counter(device(i), "rx_bytes", bytes_);
      }
      timer_ = loop_.after(seconds(1), work);
    };
    work();
    loop_.run_until([&] { return loop_.now() >= end || gone(); }, time + seconds(30));
    timer_.reset();
    if (gone()) fail("the agent ended: " + errors());
  }

  double cpu_seconds() const {
    clockid_t clock;
    timespec time{};
    if (::clock_getcpuclockid(pid_, &clock) != 0 || ::clock_gettime(clock, &time) != 0) fail("no processor time");
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
  }
  // Megabytes of a line of /proc/<pid>/status: VmRSS, RssAnon, VmHWM.
  double memory(const std::string& name) const {
    std::ifstream status("/proc/" + std::to_string(pid_) + "/status");
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with(name + ":")) return std::atof(line.c_str() + name.size() + 1) / 1024;
    }
    return 0;
  }
  uint64_t requests() const { return server_.requests(); }
  uint64_t node_writes() const { return server_.writes(kube::Node::type()); }
  size_t watches() const { return api_->watches(); }
  const std::string& log() const { return log_; }
  // Whether it has looked and found the node good: else nothing was measured.
  bool healthy() {
    const auto found = server_.find(kube::Node::type(), {"", "n1"});
    const Json node = found.empty() ? Json() : **found.json();
    return node.dump().find(R"("status":"True","type":"PitcrewHealthy")") != std::string::npos &&
           !server_.find(api::NodeHealth::type(), {"", "i-0a1"}).empty();
  }
  [[noreturn]] static void fail(const std::string& why) {
    std::fprintf(stderr, "agent_life_bench: %s\n", why.c_str());
    std::exit(1);
  }

 private:
  static std::string device(int i) { return "rdmap" + std::to_string(i) + "s29"; }
  bool gone() const { return ::kill(pid_, 0) != 0 || ::waitpid(pid_, nullptr, WNOHANG) != 0; }
  std::string errors() const {
    std::ifstream file(host_.folder() + "/stderr");
    return {std::istreambuf_iterator<char>(file), {}};
  }

  agent::FakeHost host_;
  net::AsioLoop loop_;
  local::ApiServer server_;
  std::unique_ptr<local::HttpApi> api_;
  Loop::TimerPtr timer_;
  std::string log_;
  uint64_t bytes_ = 0;
  pid_t pid_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"What the node agent costs a healthy machine with 8 GPUs and 32 EFA devices."};
  double time = 300;
  std::string programs = PITCREW_BIN_DIR, log = ::geteuid() == 0 ? "syslog" : "file";
  app.add_option("--seconds", time, "How long it is watched, after its start")->capture_default_str();
  app.add_option("--programs", programs, "Where pitcrew-agent is")->capture_default_str();
  app.add_option("--kernel-log", log, "syslog (this machine's, as root), or file: one in which nothing happens")
      ->check(CLI::IsMember({"syslog", "file"}))
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  Machine machine;
  machine.start(programs, log == "syslog");
  machine.live(kStart);
  if (!machine.healthy()) Machine::fail("after its start the agent hasn't said that the node is healthy");
  const double before = machine.cpu_seconds();
  const uint64_t requests = machine.requests(), writes = machine.node_writes();
  machine.live(from_seconds(time));
  const double share = (machine.cpu_seconds() - before) / time;
  const uint64_t written = machine.node_writes() - writes;
  const auto allowed = static_cast<uint64_t>(time / to_seconds(kHeartbeat)) + 1;
  const double most = machine.memory("VmHWM");

  std::printf("8 GPUs, 32 EFA devices, kernel log by %s, %.0f s after the start:\n", machine.log().c_str(), time);
  std::printf("memory: %.1f MB at most (limit %.0f), %.1f MB now, of which %.1f MB its own\n", most, kMostMegabytes,
              machine.memory("VmRSS"), machine.memory("RssAnon"));
  std::printf("processor: %.3f %% of a core (limit %.1f %%)\n", share * 100, kMostCoreShare * 100);
  std::printf("API server: %zu watch, %llu requests, %llu writes of the Node (limit %llu)\n", machine.watches(),
              static_cast<unsigned long long>(machine.requests() - requests), static_cast<unsigned long long>(written),
              static_cast<unsigned long long>(allowed));
  const bool good = most < kMostMegabytes && share < kMostCoreShare && machine.watches() == 1 && written <= allowed;
  std::printf("%s\n", good ? "within the limits" : "ABOVE A LIMIT");
  return good ? 0 : 1;
}
