#include "launcher/testing/fake_operator.hpp"

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fstream>

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/api/launcher_contract.hpp"
#include "lib/net/crypto.hpp"

namespace pitcrew::launcher::testing {

namespace channel = api::channel;

FakeOperator::FakeOperator(net::AsioLoop& loop) : loop_(loop) {
  const net::Validity validity{loop.now() - hours(1), loop.now() + hours(24)};
  const auto ca = net::CertificateAuthority::create("test", validity);
  EXPECT_TRUE(ca) << ca.error().message;
  ca_pem_ = ca->certificate_pem();
  const auto identity = ca->issue({.dns = {"pitcrew-channel"}}, validity);
  EXPECT_TRUE(identity) << identity.error().message;
  net::WebSocketServerSettings settings;
  settings.address = {"127.0.0.1", 0};
  settings.identity = *identity;
  net::WebSocketServerHandler handler;
  handler.on_request = [this](const net::WebSocketRequest& request, net::WebSocketAdmissionPtr admission) {
    if (away_) return admission->refuse(503, "away");
    const std::string* token = net::find_header(request.headers, "authorization");
    tokens_.push_back(token != nullptr ? *token : "");
    admission->accept(std::string());
  };
  handler.on_open = [this](const net::WebSocketSessionPtr&) { ++opened_; };
  handler.on_message = [this](const net::WebSocketSessionPtr& session, std::string text) {
    auto message = channel::decode_from_launcher(text);
    ASSERT_TRUE(message) << message.error().message;
    if (const auto* hello = std::get_if<channel::Hello>(&*message)) {
      session->context() = hello->pod_name;
      sessions_[hello->pod_name] = session;
    }
    heard_.push_back({std::any_cast<std::string>(session->context()), *std::move(message)});
  };
  auto server = net::WebSocketServer::listen(loop, settings, handler);
  EXPECT_TRUE(server) << server.error().message;
  server_ = *std::move(server);
}

channel::Config FakeOperator::config() const {
  return {{net::to_string(server_->address())}, "pitcrew-channel", ca_pem_};
}

void FakeOperator::send(const std::string& pod, const channel::ToLauncher& message) {
  ASSERT_TRUE(sessions_.contains(pod)) << pod << " has not said hello";
  sessions_[pod]->send(channel::encode(message));
}

void FakeOperator::go_away() {
  away_ = true;
  server_->close_all(1001, "away");
}

bool FakeOperator::wait(const std::function<bool()>& condition, Duration cap) {
  Loop::TimerPtr timer;
  std::function<void()> tick = [&] { timer = loop_.after(milliseconds(5), tick); };
  tick();
  return loop_.run_until(condition, cap);
}

Pod::Pod(net::AsioLoop& loop, FakeOperator& op, const std::string& root, std::string name)
    : loop_(loop), operator_(op), name_(std::move(name)), folder_(root + "/" + name_) {
  for (const char* sub : {"", "/run", "/memory"}) mkdir((folder_ + sub).c_str(), 0770);
  std::ofstream(folder_ + "/channel.json") << channel::encode(op.config());
  std::ofstream(folder_ + "/token") << "token-of-" + name_ + "\n";
  namespace contract = api::launcher;
  set(contract::kPodName, name_);
  set(contract::kPodUid, "uid-" + name_);
  set(contract::kPodNamespace, "team-a");
  set(contract::kPodIp, "127.0.0.1");
  set(contract::kNodeName, "node-" + name_);
  set(contract::kJobUid, "job-1");
  set(contract::kChannelFileVariable, folder_ + "/channel.json");
  set(contract::kTokenFileVariable, folder_ + "/token");
  set(contract::kMemoryFolderVariable, folder_ + "/memory");
  set(contract::kRunFolderVariable, folder_ + "/run");
  set("PATH", "/usr/bin:/bin");
}

Pod::~Pod() {
  if (process_.pid > 0) {
    ::kill(process_.pid, SIGKILL);
    waitpid(process_.pid, nullptr, 0);
  }
}

void Pod::set(const std::string& name, const std::string& value) {
  std::erase_if(environment_, [&](const std::string& entry) { return entry.starts_with(name + "="); });
  environment_.push_back(name + "=" + value);
}

void Pod::start(const std::vector<std::string>& command, std::vector<std::string> program, uint32_t processes) {
  set(api::launcher::kProcesses, std::to_string(processes));
  if (program.empty()) program = {PITCREW_LAUNCHER};
  program.insert(program.end(), {"run", "--"});
  program.insert(program.end(), command.begin(), command.end());
  auto started = start_process({program, environment_});
  ASSERT_TRUE(started) << started.error().message;
  process_ = *std::move(started);
  auto watch = loop_.watch_fd(process_.output.get(), net::AsioLoop::Ready::kRead, [this] { take_output(); });
  ASSERT_TRUE(watch) << watch.error().message;
  watch_ = *std::move(watch);
}

void Pod::take_output() {
  char buffer[65536];
  const ssize_t got = read(process_.output.get(), buffer, sizeof buffer);
  if (got > 0) output_.append(buffer, static_cast<size_t>(got));
  if (got == 0 || (got < 0 && errno != EAGAIN)) watch_.reset();
}

void Pod::kill(int signal) { ::kill(process_.pid, signal); }

int Pod::exit_code() {
  int status = -1;
  bool ended = false;
  EXPECT_TRUE(operator_.wait([&] { return ended = ended || waitpid(process_.pid, &status, WNOHANG) == process_.pid; }))
      << output_;
  process_.pid = -1;
  while (watch_) take_output();
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

channel::Epoch EpochBuilder::for_slot(std::optional<uint32_t> slot) const {
  channel::Epoch epoch;
  epoch.id = {Term(term), EpochNumber(number)};
  epoch.job = {"job-1", "team-a", "llama", Term(term)};
  if (slot) epoch.slot = Slot(*slot);
  epoch.world_size = static_cast<uint32_t>(pods.size()) * processes;
  for (uint32_t i = 0; i < pods.size(); ++i) {
    epoch.table.push_back(
        {Slot(i), pods[i].pod_name, pods[i].node, pods[i].address, pods[i].peer_port, Rank(i * processes), processes});
  }
  epoch.master_address = "127.0.0.1";
  epoch.master_port = 29500;
  epoch.key = net::base64_encode(std::string(32, static_cast<char>('a' + number % 26)));
  epoch.checkpoint = checkpoint;
  epoch.stall_after = stall_after;
  epoch.start_within = minutes(10);
  return epoch;
}

std::string make_temporary_folder() {
  const char* base = getenv("TMPDIR");
  std::string pattern = std::string(base != nullptr ? base : "/tmp") + "/pitcrew-launcher-XXXXXX";
  if (mkdtemp(pattern.data()) == nullptr) ADD_FAILURE() << "no temporary folder at " << pattern;
  return pattern;
}

}  // namespace pitcrew::launcher::testing
