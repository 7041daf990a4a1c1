#include "trainer/checkpoint/launcher_client.hpp"

#include <gmock/gmock.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "trainer/checkpoint/testing.hpp"

namespace pitcrew::trainer {
namespace {

using namespace launcher_socket;

// A launcher that answers each line by a function; an empty answer closes the connection.
class ToyLauncher {
 public:
  ToyLauncher(const std::string& path, std::function<std::string(const std::string&)> answer)
      : answer_(std::move(answer)), listener_(::socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(::bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(listener_, 8), 0);
    thread_ = std::thread([this] {
      for (int fd; (fd = ::accept(listener_, nullptr, nullptr)) >= 0;) {
        served_.emplace_back([this, fd] { serve(fd); });
      }
    });
  }
  ~ToyLauncher() {
    ::shutdown(listener_, SHUT_RDWR);
    thread_.join();
    for (auto& thread : served_) thread.join();
    ::close(listener_);
  }

 private:
  void serve(int fd) {
    std::string text;
    char piece[1024];
    for (ssize_t n; (n = ::recv(fd, piece, sizeof piece, 0)) > 0;) {
      text.append(piece, static_cast<size_t>(n));
      const size_t end = text.find('\n');
      if (end == std::string::npos) continue;
      const std::string answer = answer_(text.substr(0, end));
      text.erase(0, end + 1);
      if (answer.empty()) break;
      ::send(fd, answer.data(), answer.size(), MSG_NOSIGNAL);
    }
    ::close(fd);
  }
  const std::function<std::string(const std::string&)> answer_;
  const int listener_;
  std::thread thread_;
  std::vector<std::thread> served_;
};

TEST(LauncherClient, gets_its_answer_and_an_error_as_an_error) {
  testing::TemporaryFolder folder;
  const auto client = connect_launcher(folder.at("socket"));
  EXPECT_EQ(client->call(List{}).error().code, Code::kUnavailable);
  {
    ToyLauncher launcher(folder.at("socket"), [](const std::string& line) {
      const auto request = decode_request(line);
      Answer answer{.id = request->first};
      if (std::holds_alternative<Push>(request->second)) answer.copies = {Slot(3)};
      if (std::holds_alternative<Drop>(request->second)) answer.error = Error(Code::kNotFound, "no such checkpoint");
      return encode(answer);
    });
    EXPECT_EQ(client->call(Push{"step-1-c1", {"shard"}})->copies, std::vector{Slot(3)});
    const auto dropped = client->call(Drop{"step-1-c1"});
    ASSERT_FALSE(dropped);
    EXPECT_EQ(dropped.error().code, Code::kNotFound);
    client->abort();  // closes the idle connection's other end with the client
    EXPECT_EQ(client->call(List{}).error().code, Code::kCancelled);
  }
}

TEST(LauncherClient, connects_again_when_the_launcher_was_restarted) {
  testing::TemporaryFolder folder;
  std::atomic<int> calls{0};
  ToyLauncher launcher(folder.at("socket"), [&](const std::string& line) {
    // Dies before it has answered the second request.
    return ++calls == 2 ? std::string() : encode(Answer{.id = decode_request(line)->first});
  });
  const auto client = connect_launcher(folder.at("socket"));
  EXPECT_TRUE(client->call(List{}));
  EXPECT_TRUE(client->call(List{}));
  EXPECT_EQ(calls, 3);
  client->abort();
}

TEST(LauncherClient, an_abort_ends_a_call_that_is_not_answered) {
  testing::TemporaryFolder folder;
  std::atomic<bool> asked{false}, let_go{false};
  ToyLauncher launcher(folder.at("socket"), [&](const std::string&) {
    asked = true;
    while (!let_go) std::this_thread::yield();
    return std::string();
  });
  const auto client = connect_launcher(folder.at("socket"));
  std::thread aborter([&] {
    while (!asked) std::this_thread::yield();
    client->abort();
  });
  EXPECT_EQ(client->call(List{}).error().code, Code::kCancelled);
  let_go = true;
  aborter.join();
}

}  // namespace
}  // namespace pitcrew::trainer
