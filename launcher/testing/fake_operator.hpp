#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "launcher/supervise/process.hpp"
#include "lib/api/channel.hpp"
#include "lib/net/asio_loop.hpp"
#include "lib/net/tls.hpp"
#include "lib/net/websocket_server.hpp"

// What the tests of the whole program stand on; not part of it.
namespace pitcrew::launcher::testing {

inline constexpr Duration kCap = seconds(60);  // generous: what is waited for takes milliseconds

// The operator's end of the control channel: says what the test tells it to, and keeps what it hears.
class FakeOperator {
 public:
  explicit FakeOperator(net::AsioLoop& loop);

  struct Heard {
    std::string pod;  // by its hello
    api::channel::FromLauncher message;
  };

  api::channel::Config config() const;
  void send(const std::string& pod, const api::channel::ToLauncher& message);
  // Refuses connections, and cuts those that stand, until told otherwise.
  void go_away();
  void come_back() { away_ = false; }

  const std::vector<std::string>& tokens() const { return tokens_; }
  std::deque<Heard>& heard() { return heard_; }
  size_t connections() const { return opened_; }

  // Waits for a message of the type, of this pod, of which the condition holds; it and what the pod said before it are
  // forgotten.
  template <typename T>
  std::optional<T> expect(
      const std::string& pod, const std::function<bool(const T&)>& condition = [](const T&) { return true; }) {
    std::optional<T> found;
    wait([&] {
      for (size_t i = 0; i < heard_.size(); ++i) {
        const T* message = heard_[i].pod == pod ? std::get_if<T>(&heard_[i].message) : nullptr;
        if (message == nullptr || !condition(*message)) continue;
        found = *message;
        size_t index = 0;
        std::erase_if(heard_, [&](const Heard& heard) { return index++ <= i && heard.pod == pod; });
        return true;
      }
      return false;
    });
    if (!found) ADD_FAILURE() << "no such message of " << pod;
    return found;
  }
  // The condition may be one that no event of the loop tells of.
  bool wait(const std::function<bool()>& condition, Duration cap = kCap);

 private:
  net::AsioLoop& loop_;
  std::string ca_pem_;
  std::unique_ptr<net::WebSocketServer> server_;
  std::map<std::string, net::WebSocketSessionPtr> sessions_;
  std::vector<std::string> tokens_;
  std::deque<Heard> heard_;
  size_t opened_ = 0;
  bool away_ = false;
};

// A pod's folders and its launcher, a process of its own.
class Pod {
 public:
  Pod(net::AsioLoop& loop, FakeOperator& op, const std::string& root, std::string name);
  ~Pod();

  const std::string& name() const { return name_; }
  const std::string& folder() const { return folder_; }
  std::string memory() const { return folder_ + "/memory"; }
  void set(const std::string& name, const std::string& value);
  // Replaces the program before `run -- COMMAND`: a wrapper, or another copy of the launcher.
  void start(const std::vector<std::string>& command, std::vector<std::string> program = {}, uint32_t processes = 1);
  pid_t pid() const { return process_.pid; }
  void kill(int signal);
  // Waits for the launcher's end; its exit code, or 128 + signal.
  int exit_code();
  std::string output() const { return output_; }

 private:
  void take_output();

  net::AsioLoop& loop_;
  FakeOperator& operator_;
  std::string name_;
  std::string folder_;
  std::vector<std::string> environment_;
  Process process_;
  net::AsioLoop::WatchPtr watch_;
  std::string output_;
};

// A table of the pods in this order, one slot each, on nodes of their own; the first pod's view.
struct EpochBuilder {
  uint64_t term = 1;
  uint64_t number = 1;
  uint32_t processes = 1;
  std::vector<api::channel::Hello> pods;
  CheckpointSettings checkpoint = {};
  std::optional<Duration> stall_after = {};
  api::channel::Epoch for_slot(std::optional<uint32_t> slot) const;
};

std::string make_temporary_folder();

}  // namespace pitcrew::launcher::testing
