#include "launcher/memory/memory_service.hpp"

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "launcher/testing/fake_operator.hpp"

namespace pitcrew::launcher {
namespace {

using launcher_socket::Answer;
using testing::kCap;

// Launchers' memory tiers in one process, talking over loopback.
class MemoryServiceTest : public ::testing::Test {
 protected:
  MemoryServiceTest() : root_(testing::make_temporary_folder()) {}
  ~MemoryServiceTest() override {
    services_.clear();
    if (system(("rm -rf " + root_).c_str()) != 0) ADD_FAILURE() << "could not remove " << root_;
  }

  std::string folder(size_t i) const { return root_ + "/" + std::to_string(i); }
  MemoryService& make(size_t i) {
    if (services_.size() <= i) services_.resize(i + 1);
    services_[i].reset();
    mkdir(folder(i).c_str(), 0770);
    MemoryService::Settings settings;
    settings.folder = folder(i) + "/memory";
    settings.socket = folder(i) + "/launcher.sock";
    settings.address = {"127.0.0.1", 0};
    settings.client.retry_for = milliseconds(300);
    settings.client.retry_every = milliseconds(20);
    settings.client.put_bytes_per_second = put_bytes_per_second_;
    MemoryService::Handler handler;
    handler.on_saved = [this](const launcher_socket::Saved& saved) { saved_.push_back(saved); };
    handler.on_evidence = [this](const launcher_socket::Evidence& evidence) { evidence_.push_back(evidence); };
    handler.on_counted = [this](const std::string& checkpoint, Step) { counted_.push_back(checkpoint); };
    auto service = MemoryService::create(loop_, settings, handler, {});
    EXPECT_TRUE(service) << service.error().message;
    services_[i] = *std::move(service);
    return *services_[i];
  }
  MemoryService::Epoch epoch(uint32_t slot, char key = 'k', uint64_t number = 1) {
    MemoryService::Epoch epoch{
        .id = {Term(1), EpochNumber(number)}, .job_uid = "job", .slot = Slot(slot), .key = std::string(32, key)};
    for (uint32_t i = 0; i < services_.size(); ++i) {
      epoch.table.push_back(
          {Slot(i), "pod", "node-" + std::to_string(i), "127.0.0.1", services_[i]->peer_port(), Rank(i), 1});
    }
    return epoch;
  }
  void begin(size_t count) {
    for (size_t i = 0; i < count; ++i) make(i);
    for (uint32_t i = 0; i < count; ++i) ASSERT_TRUE(services_[i]->set_epoch(epoch(i)));
  }
  Answer ask(size_t i, launcher_socket::Request request) {
    std::optional<Answer> answer;
    services_[i]->handle(std::move(request), [&](Answer a) { answer = std::move(a); });
    EXPECT_TRUE(loop_.run_until([&] { return answer.has_value(); }, kCap));
    return answer.value_or(Answer{.error = Error(Code::kInternal, "no answer")});
  }
  void put(size_t i, const std::string& path, const std::string& content) {
    if (system(("mkdir -p $(dirname " + folder(i) + "/memory/" + path + ")").c_str()) != 0) ADD_FAILURE();
    std::ofstream(folder(i) + "/memory/" + path) << content;
  }
  std::string get(size_t i, const std::string& path) {
    std::ifstream in(folder(i) + "/memory/" + path);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  static std::string message(const Answer& answer) { return answer.error ? answer.error->message : ""; }

  std::string root_;
  net::AsioLoop loop_;
  std::vector<std::unique_ptr<MemoryService>> services_;
  std::vector<launcher_socket::Saved> saved_;
  std::vector<launcher_socket::Evidence> evidence_;
  std::vector<std::string> counted_;
  uint64_t put_bytes_per_second_ = 0;
};

std::string pattern(size_t size) {
  std::string text(size, '\0');
  for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i * 7 + i / 251);
  return text;
}

TEST_F(MemoryServiceTest, pushed_files_are_at_the_next_slot_whole) {
  begin(3);
  put(0, "own/step-20-c1/big", pattern(3'000'001));
  put(0, "own/step-20-c1/empty", "");
  put(0, "own/step-20-c1/sub/small", "small");
  const Answer answer = ask(0, launcher_socket::Push{"step-20-c1", {"big", "empty", "sub/small"}});
  EXPECT_FALSE(answer.error) << message(answer);
  EXPECT_EQ(answer.copies, std::vector<Slot>{Slot(1)});
  EXPECT_EQ(get(1, "peer/0/step-20-c1/big"), pattern(3'000'001));
  EXPECT_EQ(access((folder(1) + "/memory/peer/0/step-20-c1/empty").c_str(), F_OK), 0);
  EXPECT_EQ(get(1, "peer/0/step-20-c1/sub/small"), "small");
  EXPECT_TRUE(loop_.run_until([&] { return services_[0]->counters().bytes_out == 3'000'006u; }, kCap));
  EXPECT_EQ(services_[1]->counters().bytes_in, 3'000'006u);
  EXPECT_FALSE(ask(0, launcher_socket::Push{"step-20-c1", {"big"}}).error) << "again, over what is there";
}

// 2 MiB at 4 MiB/s, of which the bucket holds one.
TEST_F(MemoryServiceTest, copies_to_peers_stay_below_the_cap) {
  put_bytes_per_second_ = 4 << 20;
  begin(2);
  put(0, "own/step-20-c1/big", pattern(2 << 20));
  const auto begun = std::chrono::steady_clock::now();
  const Answer answer = ask(0, launcher_socket::Push{"step-20-c1", {"big"}});
  EXPECT_FALSE(answer.error) << message(answer);
  EXPECT_GE(std::chrono::steady_clock::now() - begun, milliseconds(240));
  EXPECT_EQ(get(1, "peer/0/step-20-c1/big"), pattern(2 << 20));
}

TEST_F(MemoryServiceTest, a_file_that_is_not_there_is_named) {
  begin(2);
  const Answer answer = ask(0, launcher_socket::Push{"step-20-c1", {"missing"}});
  ASSERT_TRUE(answer.error);
  EXPECT_EQ(answer.error->code, Code::kNotFound);
  EXPECT_NE(message(answer).find("missing"), std::string::npos);
}

TEST_F(MemoryServiceTest, ranges_are_fetched_one_after_another) {
  begin(2);
  const std::string content = pattern(1'000'000);
  put(1, "own/step-20-c1/shard", content);
  const Answer answer = ask(
      0,
      launcher_socket::Fetch{Slot(1), "own/step-20-c1/shard", {{999'990, 10}, {5, 0}, {100, 400'000}}, "rank-0/part"});
  EXPECT_FALSE(answer.error) << message(answer);
  EXPECT_EQ(get(0, "fetch/rank-0/part"), content.substr(999'990, 10) + content.substr(100, 400'000));
  EXPECT_EQ(services_[0]->counters().bytes_in, 400'010u);
  EXPECT_TRUE(loop_.run_until([&] { return services_[1]->counters().bytes_out == 400'010u; }, kCap));
  EXPECT_FALSE(ask(1, launcher_socket::Fetch{Slot(1), "own/step-20-c1/shard", {{0, 7}}, "own"}).error)
      << "from its own folder too";
  EXPECT_EQ(get(1, "fetch/own"), content.substr(0, 7));
}

TEST_F(MemoryServiceTest, what_must_not_be_read_or_written_is_refused) {
  begin(2);
  put(1, "own/step-20-c1/shard", "0123456789");
  std::ofstream(root_ + "/secret") << "secret";
  const std::vector<launcher_socket::Request> requests{
      launcher_socket::Fetch{Slot(1), "../secret", {{0, 6}}, "x"},
      launcher_socket::Fetch{Slot(1), "own/../../secret", {{0, 6}}, "x"},
      launcher_socket::Fetch{Slot(1), "/etc/passwd", {{0, 6}}, "x"},
      launcher_socket::Fetch{Slot(1), "own/step-20-c1/shard", {{0, 11}}, "x"},
      launcher_socket::Fetch{Slot(1), "own/step-20-c1/shard", {{~uint64_t{0}, 2}}, "x"},
      launcher_socket::Fetch{Slot(1), "own/step-20-c1/shard", {{0, 6}}, "../own/x"},
      launcher_socket::Fetch{Slot(1), "own/step-20-c1/none", {{0, 1}}, "x"},
      launcher_socket::Fetch{Slot(9), "own/step-20-c1/shard", {{0, 1}}, "x"},
      launcher_socket::Push{"..", {"shard"}},
      launcher_socket::Push{"step-20-c1", {"../../secret"}},
      launcher_socket::Drop{"../.."},
      launcher_socket::Counted{"../x", Step(1)},
  };
  for (size_t i = 0; i < requests.size(); ++i) EXPECT_TRUE(ask(0, requests[i]).error) << "request " << i;
  EXPECT_EQ(get(0, "fetch/x"), "");
  EXPECT_TRUE(ask(0, launcher_socket::Fetch{Slot(1), "own/step-20-c1/shard",
                                            std::vector<launcher_socket::Fetch::Range>(5000, {0, 1}), "x"})
                  .error);
}

TEST_F(MemoryServiceTest, a_peer_without_room_says_so_and_keeps_nothing) {
  begin(2);
  put(0, "own/step-20-c1/sparse", "");
  ASSERT_EQ(truncate((folder(0) + "/memory/own/step-20-c1/sparse").c_str(), off_t{1} << 42), 0);
  const Answer answer = ask(0, launcher_socket::Push{"step-20-c1", {"sparse"}});
  ASSERT_TRUE(answer.error);
  EXPECT_EQ(answer.error->code, Code::kResourceExhausted) << message(answer);
  EXPECT_TRUE(ask(1, launcher_socket::List{}).held.at(1).peer.empty());
}

TEST_F(MemoryServiceTest, another_key_is_refused_and_left_out_of_the_list) {
  begin(3);
  put(0, "own/step-20-c1/shard", "x");
  put(1, "own/step-20-c1/shard", "x");
  ASSERT_TRUE(services_[1]->set_epoch(epoch(1, 'z')));
  const Answer push = ask(0, launcher_socket::Push{"step-20-c1", {"shard"}});
  ASSERT_TRUE(push.error);
  EXPECT_NE(push.error->code, Code::kNotFound) << message(push);
  const Answer list = ask(0, launcher_socket::List{});
  ASSERT_EQ(list.held.size(), 2u);
  EXPECT_TRUE(list.held[0].self);
  EXPECT_EQ(list.held[1].slot, Slot(2));
  EXPECT_EQ(get(1, "peer/0/step-20-c1/shard"), "");
}

TEST_F(MemoryServiceTest, a_peer_that_hears_of_the_epoch_later_is_waited_for) {
  make(0);
  make(1);
  ASSERT_TRUE(services_[0]->set_epoch(epoch(0)));
  const auto late = loop_.after(milliseconds(60), [&] { ASSERT_TRUE(services_[1]->set_epoch(epoch(1))); });
  EXPECT_EQ(ask(0, launcher_socket::List{}).held.size(), 2u);
}

TEST_F(MemoryServiceTest, a_new_epoch_ends_what_was_under_way) {
  begin(2);
  put(0, "own/step-20-c1/shard", pattern(50'000'000));
  std::optional<Answer> answer;
  services_[0]->handle(launcher_socket::Push{"step-20-c1", {"shard"}}, [&](Answer a) { answer = std::move(a); });
  EXPECT_TRUE(loop_.run_until([&] { return services_[1]->counters().bytes_in > 0; }, kCap));
  ASSERT_TRUE(services_[0]->set_epoch(epoch(0, 'n', 2)));
  ASSERT_TRUE(services_[1]->set_epoch(epoch(1, 'n', 2)));
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->error->code, Code::kCancelled);
  EXPECT_TRUE(ask(1, launcher_socket::List{}).held.at(1).peer.empty()) << "a half is no copy";
}

TEST_F(MemoryServiceTest, after_its_restart_a_launcher_serves_what_it_held) {
  begin(2);
  put(0, "own/step-20-c1/shard", "own bytes");
  ASSERT_FALSE(ask(0, launcher_socket::Push{"step-20-c1", {"shard"}}).error);
  ASSERT_FALSE(ask(1, launcher_socket::Counted{"step-20-c1", Step(20)}).error);
  make(1);
  EXPECT_EQ(services_[1]->counted().at(0).step, Step(20));
  for (uint32_t i = 0; i < 2; ++i) ASSERT_TRUE(services_[i]->set_epoch(epoch(i, 'n', 2)));
  const Answer fetched = ask(0, launcher_socket::Fetch{Slot(1), "peer/0/step-20-c1/shard", {{0, 9}}, "back"});
  EXPECT_FALSE(fetched.error) << message(fetched);
  EXPECT_EQ(get(0, "fetch/back"), "own bytes");
}

TEST_F(MemoryServiceTest, a_drop_reaches_the_copies) {
  begin(2);
  put(0, "own/step-20-c1/shard", "x");
  ASSERT_FALSE(ask(0, launcher_socket::Push{"step-20-c1", {"shard"}}).error);
  ASSERT_FALSE(ask(0, launcher_socket::Drop{"step-20-c1"}).error);
  EXPECT_TRUE(ask(0, launcher_socket::List{}).held.at(0).own.empty());
  EXPECT_TRUE(ask(0, launcher_socket::List{}).held.at(1).peer.empty());
}

TEST_F(MemoryServiceTest, a_list_that_is_too_long_keeps_what_counts) {
  begin(1);
  for (int step = 0; step < 30; ++step) {
    const std::string name = "own/step-" + std::to_string(step) + "-c1/";
    put(0, name + "first", "x");
    for (int file = 0; file < 80; ++file)
      std::ofstream(folder(0) + "/memory/" + name + "a-rather-long-name-of-a-shard-" + std::to_string(file)) << "x";
  }
  ASSERT_FALSE(ask(0, launcher_socket::Counted{"step-7-c1", Step(7)}).error);
  const Answer list = ask(0, launcher_socket::List{});
  EXPECT_EQ(list.held.at(0).own.size(), 81u);
  EXPECT_LT(launcher_socket::encode(list).size(), launcher_socket::kMaxLine);
}

TEST_F(MemoryServiceTest, without_a_place_in_an_epoch_nothing_is_done) {
  make(0);
  EXPECT_EQ(ask(0, launcher_socket::List{}).error->code, Code::kUnavailable);
}

// A rank's end of the socket.
class RankEnd {
 public:
  explicit RankEnd(const std::string& path) : socket_(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    EXPECT_EQ(connect(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  void say(const std::string& text) {
    for (size_t at = 0; at < text.size();) {
      const ssize_t wrote = send(socket_.get(), text.data() + at, text.size() - at, MSG_NOSIGNAL);
      if (wrote <= 0) return;
      at += static_cast<size_t>(wrote);
    }
  }
  // What has come so far; "closed" at the end of the stream.
  const std::string& heard() {
    char buffer[4096];
    ssize_t got = 0;
    while ((got = read(socket_.get(), buffer, sizeof buffer)) > 0) text_.append(buffer, static_cast<size_t>(got));
    if (got == 0 && !text_.ends_with("closed")) text_ += "closed";
    return text_;
  }

 private:
  Descriptor socket_;
  std::string text_;
};

TEST_F(MemoryServiceTest, ranks_are_answered_line_by_line_over_the_socket) {
  begin(1);
  RankEnd rank(services_[0]->socket_path());
  rank.say(launcher_socket::encode(4, launcher_socket::Saved{Step(40), "/c/step-40-c1", 12, 2}));
  const std::string split =
      launcher_socket::encode(5, launcher_socket::Evidence{Rank(3), "lost-peer", "gone", Rank(1)});
  rank.say(split.substr(0, 10));
  EXPECT_TRUE(loop_.run_until([&] { return rank.heard().find("\"id\":4") != std::string::npos; }, kCap));
  rank.say(split.substr(10) + "not json\n{\"id\":6,\"op\":\"dance\"}\n");
  EXPECT_TRUE(loop_.run_until([&] { return rank.heard().find("\"id\":6") != std::string::npos; }, kCap));
  EXPECT_NE(rank.heard().find("dance"), std::string::npos) << rank.heard();
  EXPECT_NE(rank.heard().find("\"id\":5,\"ok\":true"), std::string::npos) << rank.heard();
  ASSERT_EQ(saved_.size(), 1u);
  EXPECT_EQ(saved_[0].request, 2u);
  ASSERT_EQ(evidence_.size(), 1u);
  EXPECT_EQ(evidence_[0].peer, Rank(1));
}

TEST_F(MemoryServiceTest, a_line_without_end_is_cut) {
  begin(1);
  RankEnd rank(services_[0]->socket_path());
  for (int i = 0; i < 3; ++i) {
    rank.say(std::string(40'000, 'x'));
    loop_.run_until([&] { return rank.heard().ends_with("closed"); }, milliseconds(50));
  }
  EXPECT_TRUE(loop_.run_until([&] { return rank.heard().ends_with("closed"); }, kCap));
}

TEST_F(MemoryServiceTest, a_path_that_is_too_long_for_a_socket_gets_another) {
  std::string deep = root_;
  while (deep.size() < 120) {
    deep += "/a-long-name-of-a-folder";
    mkdir(deep.c_str(), 0770);
  }
  auto server = RankSocket::listen(loop_, deep + "/launcher.sock",
                                   [](launcher_socket::Request, RankSocket::Answer answer) { answer({}); }, {});
  ASSERT_TRUE(server) << server.error().message;
  const std::string path = (*server)->path();
  EXPECT_LT(path.size(), 108u);
  RankEnd rank(path);
  rank.say("{\"id\":1,\"op\":\"list\"}\n");
  EXPECT_TRUE(loop_.run_until([&] { return rank.heard() == "{\"id\":1,\"ok\":true}\n"; }, kCap));
  *server = nullptr;
  EXPECT_NE(access(path.c_str(), F_OK), 0);
}

}  // namespace
}  // namespace pitcrew::launcher
