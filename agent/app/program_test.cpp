// The real program, with a machine made of files, NVIDIA's library for tests, and an API server behind HTTP.
#include <cstdlib>
#include <fstream>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/app/testing/agent_process.hpp"
#include "lib/api/cordon_budget.hpp"
#include "lib/api/health_names.hpp"
#include "lib/api/node_health.hpp"
#include "lib/kube/types/event.hpp"
#include "lib/kube/types/node.hpp"
#include "lib/local/http/http_api.hpp"
#include "lib/net/http_client.hpp"

namespace pitcrew::agent {
namespace {

namespace names = api::health;

constexpr Duration kPatience = seconds(60);  // of a noisy machine; nothing waits for it when all is well
constexpr char kXid79[] =
    "NVRM: Xid (PCI:0000:b9:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.";
constexpr char kXid94[] = "NVRM: Xid (PCI:0000:b9:00): 94, pid=4242, name=python3, Contained: SM (0x1). RST: No";
const std::string kContainer(64, 'c');

class AgentProgramTest : public testing::Test {
 protected:
  AgentProgramTest() : server_(loop_, {}), folder_(host_.folder()) {
    server_.register_type(api::NodeHealth::type(), {});
    server_.register_type(api::HealthPolicy::type(), {});
    server_.register_type(api::CordonBudget::type(), {});
    server_.track_managers(kube::Node::type());
    auto api = local::HttpApi::serve(loop_, server_, {});
    EXPECT_TRUE(api) << api.error().message;
    api_ = *std::move(api);
    create(kube::Node::type(),
           {{"metadata", {{"name", "n1"}, {"labels", {{"node.kubernetes.io/instance-type", "p5en.48xlarge"}}}}},
            {"spec", {{"providerID", "aws:///us-east-2b/i-0a1"}}}});
    boot("boot-1");
    host_.file("proc/stat", "cpu 1 2 3\nbtime " + std::to_string(booted_));
    host_.file("proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 900 kB");
    host_.file("proc/4242/cgroup", "0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + kContainer + ".scope");
    host_.file("var/log/containers/llama-3_team-a_train-" + kContainer + ".log", "");
    host_.file("faults.yaml", "{}");
    write_kubeconfig(host_, api_->address().port);
    EXPECT_EQ(mkfifo((folder_ + "/kernel.log").c_str(), 0600), 0);
    log_ = ::open((folder_ + "/kernel.log").c_str(), O_RDWR | O_NONBLOCK);
    EXPECT_GE(log_, 0);
  }
  ~AgentProgramTest() override {
    if (pid_ > 0) end(SIGKILL);
    ::close(log_);
    if (HasFailure()) dump();
  }

  void boot(const std::string& id) { host_.file("proc/sys/kernel/random/boot_id", id); }

  void start() {
    host_.file("agent.yaml", "host: " + folder_ + "\nstate: " + folder_ + "/state\nkernelLog: " + folder_ + "/" +
                                 log_name_ + "\nnvml: " + nvml_ + "\nmetricsPort: 0\nhealthPort: 0\n" + config_);
    pid_ = start_agent(PITCREW_BIN_DIR "/pitcrew-agent", host_, "p5en");
    ASSERT_GT(pid_, 0);
  }
  // The exit code; 128 and the signal's number where one ended it.
  int end(int signal) {
    ::kill(pid_, signal);
    int status = 0;
    bool gone = false;
    EXPECT_TRUE(until([&] { return gone = gone || ::waitpid(pid_, &status, WNOHANG) == pid_; }));
    pid_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  // The log as a file, which can be read again, in the place of a pipe.
  void log_to_file() {
    ::close(log_);
    log_name_ = "kernel.txt";
    log_ = ::open((folder_ + "/" + log_name_).c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600);
    ASSERT_GE(log_, 0);
  }
  void say(const std::string& line, int seconds = 100) {
    char time[64];
    std::snprintf(time, sizeof time, "<3>[%5d.%06d] ", seconds, ++said_);
    const std::string text = time + line + "\n";
    ASSERT_EQ(::write(log_, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }

  void create(const ResourceType& type, Json object) {
    kube::Request request{.verb = kube::Verb::kCreate, .type = type};
    request.body = kube::Payload::of(std::move(object));
    ASSERT_EQ(server_.handle(request).status, 201);
  }
  Json get(const ResourceType& type, const std::string& name) {
    const auto found = server_.find(type, {"", name});
    return found.empty() ? Json() : **found.json();
  }
  Json node() { return get(kube::Node::type(), "n1"); }
  Json health() { return get(api::NodeHealth::type(), "i-0a1"); }
  // "cordoned tainted False", what of it is so.
  std::string state() {
    const Json json = node();
    std::string text;
    const auto add = [&](bool is, const std::string& word) { text += is ? (text.empty() ? "" : " ") + word : ""; };
    const Json spec = json.value("spec", Json::object()), status = json.value("status", Json::object());
    add(spec.value("unschedulable", false), "cordoned");
    for (const Json& taint : spec.value("taints", Json::array())) add(taint["key"] == names::kUnhealthy, "tainted");
    for (const Json& condition : status.value("conditions", Json::array()))
      add(condition["type"] == names::kCondition, condition["status"]);
    return text;
  }
  std::multiset<std::string> events() {
    std::multiset<std::string> reasons;
    server_.for_each(kube::Event::type(),
                     [&](const kube::Payload& event) { reasons.insert((**event.json())["reason"]); });
    return reasons;
  }
  std::vector<std::string> verdicts() {
    std::vector<std::string> rules;
    const Json found = health();
    if (!found.is_object() || !found.contains("status")) return rules;
    for (const Json& verdict : found["status"].value("verdicts", Json::array()))
      rules.push_back(verdict["rule"].get<std::string>() + " " + verdict["device"].get<std::string>());
    return rules;
  }
  void annotate(const std::string& key, const std::string& value) {
    kube::Request request{.verb = kube::Verb::kPatch, .type = kube::Node::type(), .key = {"", "n1"}};
    request.body = kube::Payload::of({{"metadata", {{"annotations", {{key, value}}}}}});
    ASSERT_EQ(server_.handle(request).status, 200);
  }
  bool until(const std::function<bool()>& condition) {
    // A child's end tells the loop nothing, so it is woken to look.
    std::function<void()> tick = [&] { timer_ = loop_.after(milliseconds(5), tick); };
    tick();
    const bool holds = loop_.run_until(condition, kPatience);
    timer_.reset();
    return holds;
  }
  bool comes_to(const std::string& wanted) {
    if (until([&] { return state() == wanted; })) return true;
    ADD_FAILURE() << "still: " << state();
    return false;
  }
  // The program is there and has said what it thinks of the node.
  bool is_up() {
    return comes_to("True") && until([&] { return health().is_object() && health().contains("status"); });
  }

  bool page_has(const std::string& part) {
    const Instant end = loop_.now() + kPatience;
    while (loop_.now() < end) {
      if (get_page("metrics", "/metrics").find(part) != std::string::npos) return true;
      loop_.run_until([] { return false; }, milliseconds(50));
    }
    return false;
  }
  std::string get_page(const std::string& which, const std::string& path) {
    std::ifstream errors(folder_ + "/stderr");
    const std::string text{std::istreambuf_iterator<char>(errors), {}};
    const std::string mark = "\"" + which + "\":\"";
    const size_t at = text.rfind(mark);
    EXPECT_NE(at, std::string::npos);
    const std::string address = text.substr(at + mark.size(), text.find('"', at + mark.size()) - at - mark.size());
    const uint16_t port = static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1)));
    std::optional<std::string> answer;
    net::HttpRequest request;
    request.target = path;
    net::HttpClientSettings settings;
    settings.address = {"127.0.0.1", port};
    const auto exchange = net::http_request(
        loop_, settings, request, {[&](Result<net::HttpResponse> response) {
          answer = response ? std::to_string(response->status) + " " + response->body : response.error().message;
        }});
    return until([&] { return answer.has_value(); }) ? *answer : "";
  }
  void dump() {
    std::ifstream errors(folder_ + "/stderr");
    std::cerr << errors.rdbuf() << "\n";
  }

  FakeHost host_;
  net::AsioLoop loop_;
  local::ApiServer server_;
  std::string folder_;
  std::unique_ptr<local::HttpApi> api_;
  Loop::TimerPtr timer_;
  const int64_t booted_ = std::chrono::duration_cast<seconds>(RealClock().now().since_epoch()).count() - 600;
  std::string config_;
  std::string nvml_ = PITCREW_FAKE_NVML;
  int log_ = -1;
  std::string log_name_ = "kernel.log";
  int said_ = 0;
  pid_t pid_ = 0;
};

TEST_F(AgentProgramTest, xid_79_cordons_the_node_and_a_person_who_clears_it_gives_it_back) {
  start();
  ASSERT_TRUE(is_up());
  const Instant said = loop_.now();
  say(kXid79);
  ASSERT_TRUE(until([&] { return state().starts_with("cordoned tainted"); }));
  std::printf("from the line to the cordon: %.1f ms\n", to_seconds(loop_.now() - said) * 1e3);
  ASSERT_TRUE(comes_to("cordoned tainted False"));
  ASSERT_TRUE(until([&] { return verdicts().size() == 1; }));
  EXPECT_EQ(verdicts(), std::vector<std::string>{"xid-79 GPU-p5en-6"});
  EXPECT_EQ(health()["status"]["needs"], "Replace");
  EXPECT_EQ(health()["status"]["gpus"].size(), 8u);
  EXPECT_EQ(health()["spec"]["providerID"], "aws:///us-east-2b/i-0a1");
  EXPECT_EQ(node()["metadata"]["labels"][names::kUnhealthy], "xid-79");
  ASSERT_TRUE(until([&] { return events() == std::multiset<std::string>{"Cordoned", "HealthFinding"}; }));

  annotate(names::kRequestClear, "1 xid-79");
  ASSERT_TRUE(comes_to("True"));
  ASSERT_TRUE(until([&] { return verdicts().empty(); }));
  EXPECT_EQ(health()["status"]["history"].size(), 2u);
  EXPECT_EQ(end(SIGTERM), 0);
}

TEST_F(AgentProgramTest, xid_94_is_a_warning_and_the_node_stays) {
  start();
  ASSERT_TRUE(is_up());
  say(kXid94);
  ASSERT_TRUE(until([&] { return verdicts().size() == 1; }));
  EXPECT_EQ(verdicts(), std::vector<std::string>{"xid-94 GPU-p5en-6"});
  EXPECT_EQ(health()["status"]["healthy"], true);
  EXPECT_EQ(state(), "True");
  EXPECT_EQ(events(), std::multiset<std::string>{"HealthFinding"});
}

TEST_F(AgentProgramTest, killed_in_the_middle_it_comes_to_the_same_result_once) {
  log_to_file();
  start();
  ASSERT_TRUE(is_up());
  EXPECT_EQ(end(SIGKILL), 128 + SIGKILL);
  // The line comes while nobody reads, and the next one is killed as soon as it has begun to act.
  say(kXid79);
  start();
  ASSERT_TRUE(until([&] { return state().find("cordoned") != std::string::npos; }));
  end(SIGKILL);
  start();
  ASSERT_TRUE(comes_to("cordoned tainted False"));
  ASSERT_TRUE(until([&] { return verdicts().size() == 1; }));
  ASSERT_TRUE(until([&] { return events() == std::multiset<std::string>{"Cordoned", "HealthFinding"}; }));
  EXPECT_EQ(health()["status"]["history"].size(), 1u);
  EXPECT_EQ(health()["status"]["verdicts"][0]["count"], 1);

  // The machine boots anew: what clears by that is cleared, and all is taken back.
  end(SIGKILL);
  boot("boot-2");
  ASSERT_EQ(::ftruncate(log_, 0), 0);  // as the kernel's is empty then
  start();
  ASSERT_TRUE(comes_to("True"));
  ASSERT_TRUE(until([&] { return verdicts().empty(); }));
}

TEST_F(AgentProgramTest, a_policy_of_the_cluster_counts_from_the_first_line_on) {
  create(api::HealthPolicy::type(),
         {{"metadata", {{"name", "ours"}}},
          {"spec",
           {{"rules", Json::array({{{"name", "xid-79"},
                                    {"match", {{"kind", "xid"}, {"codes", Json::array({79})}}},
                                    {"severity", "Warning"},
                                    {"clears", {{"when", "AfterTime"}, {"after", "1h"}}},
                                    {"message", "we know"}}})}}}});
  say(kXid79);
  start();
  ASSERT_TRUE(until([&] { return verdicts().size() >= 1 && state() == "True"; }));
  EXPECT_EQ(health()["status"]["healthy"], true);
}

TEST_F(AgentProgramTest, metrics_say_who_uses_a_gpu_and_health_says_ready) {
  config_ = "shadow: true\n";
  host_.file("faults.yaml", "{set: {6: {processes: 1}}}");
  start();
  ASSERT_TRUE(is_up());
  EXPECT_EQ(get_page("health", "/readyz"), "200 ok\n");
  say(kXid94);
  ASSERT_TRUE(until([&] { return verdicts().size() == 1; }));
  for (const char* part :
       {"DCGM_FI_DEV_GPU_TEMP{gpu=\"6\",UUID=\"GPU-p5en-6\",pci_bus_id=\"00000000:B9:00.0\"", "xid=\"94\"} 1\n",
        "pitcrew_gpu_missing 0\n", "pitcrew_probe_up{probe=\"kernel.log\"} 1", "process_resident_memory_bytes"}) {
    // Probes look in threads of their own: some may not have looked when the log was judged.
    EXPECT_TRUE(page_has(part)) << part;
  }
}

TEST_F(AgentProgramTest, a_node_without_gpus_is_looked_after_without_complaint) {
  nvml_ = "libpitcrew-has-no-such-library.so.1";
  kube::Request request{.verb = kube::Verb::kPatch, .type = kube::Node::type(), .key = {"", "n1"}};
  request.body = kube::Payload::of({{"metadata", {{"labels", {{"node.kubernetes.io/instance-type", "m7i.4xlarge"}}}}}});
  ASSERT_EQ(server_.handle(request).status, 200);
  start();
  ASSERT_TRUE(is_up());
  EXPECT_TRUE(verdicts().empty());
  const std::string page = get_page("metrics", "/metrics");
  EXPECT_EQ(page.find("DCGM_FI_"), std::string::npos);
  EXPECT_EQ(page.find("pitcrew_probe_up{probe=\"gpu.ecc\"} 0"), std::string::npos);
}

}  // namespace
}  // namespace pitcrew::agent
