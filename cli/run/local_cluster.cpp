#include "cli/run/local_cluster.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include <unistd.h>

#include "cli/run/guard.hpp"
#include "cli/run/run_folder.hpp"
#include "lib/local/node/process_tree.hpp"
#include "lib/net/crypto.hpp"

namespace pitcrew::cli {
namespace {

// One machine under all of them: silence is soon certain. (A real cluster waits for 40 s.)
constexpr Duration kNodeGrace = seconds(10);
constexpr Duration kBootAgainAfter = seconds(5);

std::string environment_or(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : value;
}

std::string program_of(pid_t pid) {
  std::error_code error;
  const auto target = std::filesystem::read_symlink("/proc/" + std::to_string(pid) + "/exe", error);
  return error ? "" : target.filename().string();
}

}  // namespace

struct LocalCluster::Node {
  std::string name;
  std::string memory_folder;
  std::unique_ptr<local::ProcessRuntime> runtime;
  std::unique_ptr<local::Kubelet> kubelet;
  Loop::TimerPtr off;  // after chaos
};

// Events kept for each type, whole objects: a job's status has tens of kilobytes. Watches here are never far behind.
constexpr size_t kHistory = 64;

LocalCluster::LocalCluster(Loop& loop, const RunFolder& folder, LocalClusterSettings settings, Random random,
                           Logger log)
    : loop_(loop),
      settings_(std::move(settings)),
      log_(std::move(log)),
      server_(loop, {
                        .seed = random(),
                        .history = kHistory,
                        .token_source = [] { return net::hex(net::random_bytes(32)); },
                    }) {
  node_controller_ = std::make_unique<local::NodeController>(loop, transport(), random(),
                                                             local::NodeControllerSettings{.grace = kNodeGrace}, log_);
  scheduler_ = std::make_unique<local::Scheduler>(loop, transport(), random(), local::SchedulerFaults{}, log_);
  for (unsigned i = 0; i < settings_.nodes; ++i) {
    auto node = std::make_unique<Node>();
    node->name = "n" + std::to_string(i);
    node->memory_folder = folder.memory() + "/" + node->name;
    node->runtime = std::make_unique<local::ProcessRuntime>(
        loop, local::ProcessRuntimeSettings{{"/proc/self/exe", "run-node"}}, log_);
    local::KubeletSettings kubelet;
    kubelet.node = node->name;
    // Every pod has an address of its own on the loopback interface, so that no two programs want the same port.
    kubelet.node_ip = "127.1." + std::to_string(i + 1) + ".254";
    kubelet.pod_ip_prefix = "127.1." + std::to_string(i + 1);
    kubelet.provider_id = "pitcrew-run:///" + folder.run_id() + "/" + node->name;
    kubelet.restart_backoff_first = seconds(1);
    kubelet.boot_again_after = kBootAgainAfter;
    local::PodFilesSettings& files = kubelet.files.emplace();
    files.pods_folder = folder.nodes() + "/" + node->name;
    files.volumes_folder = folder.volumes();
    files.memory_folder = node->memory_folder;
    files.logs_folder = folder.logs();
    files.launcher_binary = settings_.launcher;
    files.working_folder = std::filesystem::current_path().string();
    files.path = {settings_.programs};
    const std::string mark = run_mark(folder.run_id());
    files.base_env = {{"HOME", environment_or("HOME", "/")},
                      {"PATH", environment_or("PATH", "/usr/local/bin:/usr/bin:/bin")},
                      {mark.substr(0, mark.find('=')), folder.run_id()}};
    local::ApiServer* server = &server_;
    node->kubelet = std::make_unique<local::Kubelet>(
        loop, transport(), *node->runtime, *node_controller_, random.split(), kubelet,
        [server](const std::string& audience, const ObjectKey& pod, const std::string& uid, Duration lifetime) {
          return server->issue_token(audience, pod, uid, lifetime);
        },
        log_.with({{"node", node->name}}));
    nodes_.push_back(std::move(node));
  }
}

LocalCluster::~LocalCluster() = default;

kube::Transport& LocalCluster::transport() {
  return *transports_.emplace_back(std::make_unique<local::MemoryTransport>(loop_, server_));
}

void LocalCluster::start() {
  scheduler_->start();
  for (const auto& node : nodes_) node->kubelet->boot();
}

bool LocalCluster::up() const {
  return std::all_of(nodes_.begin(), nodes_.end(), [this](const auto& node) {
    const kube::Payload stored = server_.find(kube::Node::type(), {"", node->name});
    const auto object = stored.empty() ? Result<std::shared_ptr<const kube::Node>>(Error(Code::kNotFound, ""))
                                       : stored.as<kube::Node>();
    return object && (*object)->ready();
  });
}

bool LocalCluster::alive(const std::string& name) const {
  const Node* node = find(name);
  return node != nullptr && node->kubelet->up();
}

void LocalCluster::stop() {
  for (const auto& node : nodes_) {
    node->off.reset();
    node->kubelet.reset();
    node->runtime.reset();
  }
  nodes_.clear();
}

const LocalCluster::Node* LocalCluster::find(const std::string& name) const {
  for (const auto& node : nodes_) {
    if (node->name == name) return node.get();
  }
  return nullptr;
}

bool LocalCluster::kill_node(const std::string& name) {
  Node* node = const_cast<Node*>(find(name));
  if (node == nullptr || !node->kubelet->up()) return false;
  node->kubelet->freeze();
  std::error_code ignored;
  std::filesystem::remove_all(node->memory_folder, ignored);
  node->off = loop_.after(settings_.frozen_for, [node] { node->kubelet->power_off(); });
  return true;
}

int LocalCluster::launcher_of(const std::string& name) const {
  const Node* node = find(name);
  if (node == nullptr || node->runtime->pid() < 0) return -1;
  for (const pid_t pid : local::descendants(node->runtime->pid())) {
    if (program_of(pid) == "pitcrew-launcher") return pid;
  }
  return -1;
}

int LocalCluster::rank_of(const std::string& name, uint32_t rank) const {
  const int launcher = launcher_of(name);
  if (launcher < 0) return -1;
  for (const pid_t pid : local::children(launcher)) {
    if (local::has_environment(pid, "RANK=" + std::to_string(rank)).value_or(false)) return pid;
  }
  return -1;
}

}  // namespace pitcrew::cli
