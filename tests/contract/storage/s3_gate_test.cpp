// The bucket behind a network that is slow, stands still and cuts connections.
#include <thread>

#include <gtest/gtest.h>

#include "lib/base/random.hpp"
#include "tests/contract/net/tcp_gate.hpp"
#include "tests/contract/storage/s3_server.hpp"

namespace pitcrew::trainer {
namespace {

using net::testing::TcpGate;
using testing::S3Server;

constexpr size_t kMiB = size_t{1} << 20;

// The gate on a thread of its own; what is asked of it is done there.
class GateThread {
 public:
  GateThread() : gate_(loop_, {"127.0.0.1", S3Server::shared()->port()}, Random(1)), port_(gate_.address().port) {
    thread_ = std::jthread([this] { loop_.run(); });
  }
  ~GateThread() {
    loop_.stop();
    thread_.join();
  }
  uint16_t port() const { return port_; }
  void ask(std::function<void(TcpGate&)> what) {
    loop_.post([this, what = std::move(what)] { what(gate_); });
  }
  void ask_after(Duration time, std::function<void(TcpGate&)> what) {
    loop_.post([this, time, what = std::move(what)] { timer_ = loop_.after(time, [this, what] { what(gate_); }); });
  }

 private:
  net::AsioLoop loop_;
  TcpGate gate_;
  Loop::TimerPtr timer_;
  const uint16_t port_;
  std::jthread thread_;
};

class S3Gate : public ::testing::Test {
 protected:
  void SetUp() override {
    PITCREW_NEEDS_S3_SERVER();
    gate = std::make_unique<GateThread>();
    s3::Client::Settings settings;
    settings.http.slow_for = seconds(1);
    storage = *s3::open_s3_storage(S3Server::shared()->new_path(), S3Server::shared()->variables(gate->port()), clock,
                                   settings, {.part_bytes = 5 * kMiB, .parallel = 2});
    content.resize(12 * kMiB);
    Random random(7);
    for (char& c : content) c = static_cast<char>(random());
  }
  Status write() {
    PITCREW_ASSIGN(const auto upload, storage->write("step-1-c1/shard-0"));
    PITCREW_TRY(upload->append(std::as_bytes(std::span(content))));
    return upload->finish();
  }
  void expect_content() {
    const auto text = storage->read("step-1-c1/shard-0", 64 * kMiB);
    ASSERT_TRUE(text) << text.error().message;
    EXPECT_TRUE(*text == content);
  }

  const RealClock clock;
  std::unique_ptr<GateThread> gate;
  std::unique_ptr<Storage> storage;
  std::string content;
};

TEST_F(S3Gate, a_slow_stream_is_only_slow) {
  gate->ask([](TcpGate& it) {
    it.delay(milliseconds(5));
    it.slice(256 * 1024);
  });
  const Status done = write();
  ASSERT_TRUE(done) << done.error().message;
  expect_content();
}

TEST_F(S3Gate, parts_that_are_cut_on_their_way_are_sent_again) {
  gate->ask([](TcpGate& it) { it.cut_after(TcpGate::Direction::kToServer, 4 * kMiB); });
  gate->ask_after(milliseconds(400), [](TcpGate& it) { it.cut_after(TcpGate::Direction::kToServer, 0); });
  const Status done = write();
  ASSERT_TRUE(done) << done.error().message;
  expect_content();
}

TEST_F(S3Gate, a_read_that_is_cut_is_read_again) {
  ASSERT_TRUE(write());
  gate->ask([](TcpGate& it) { it.cut_after(TcpGate::Direction::kToClient, 2 * kMiB); });
  gate->ask_after(milliseconds(400), [](TcpGate& it) { it.cut_after(TcpGate::Direction::kToClient, 0); });
  expect_content();
}

TEST_F(S3Gate, a_stream_that_stands_still_is_given_up_and_tried_again) {
  gate->ask([](TcpGate& it) { it.stop_both(true); });
  gate->ask_after(milliseconds(1500), [](TcpGate& it) {
    it.cut();
    it.stop_both(false);
  });
  const Status done = write();
  ASSERT_TRUE(done) << done.error().message;
  expect_content();
}

}  // namespace
}  // namespace pitcrew::trainer
