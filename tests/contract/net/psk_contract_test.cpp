#include <fstream>
#include <optional>

#include <gmock/gmock.h>

#include "lib/net/crypto.hpp"
#include "lib/net/psk.hpp"
#include "tests/contract/net/net_fixture.hpp"
#include "tests/contract/net/raw_client.hpp"

namespace pitcrew::net::testing {
namespace {

using Direction = TcpGate::Direction;
using ::testing::HasSubstr;

std::string key_of(std::string_view what) { return hmac_sha256("a secret of the operator's", what); }
const PskKey kEpoch7{"job-1/3/7", key_of("7")};
const PskKey kEpoch8{"job-1/3/8", key_of("8")};

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }
std::span<std::byte> bytes_of(std::string& text) { return std::as_writable_bytes(std::span(text)); }

// RssAnon of this process.
size_t anonymous_bytes() {
  std::ifstream file("/proc/self/status");
  std::string word;
  size_t kilobytes = 0;
  while (file >> word) {
    if (word == "RssAnon:" && file >> kilobytes) return kilobytes * 1024;
  }
  return 0;
}

class PskContract : public NetTest {
 protected:
  std::unique_ptr<PskServer> server;
  PskConnection::Ptr at_server;
  PskConnection::Ptr at_client;

  static PskSettings limits() {
    PskSettings settings;
    settings.handshake_timeout = seconds(30);
    settings.io_timeout = seconds(30);
    return settings;
  }
  void listen(std::vector<PskKey> keys, PskSettings settings = limits()) {
    PskServer::Settings with;
    with.address = kLoopback;
    with.connection = settings;
    auto made = PskServer::listen(loop, with, std::move(keys),
                                  [this](PskConnection::Ptr connection) { at_server = std::move(connection); });
    ASSERT_TRUE(made.ok()) << made.error().message;
    server = *std::move(made);
  }
  Status connect(const Address& address, const PskKey& key, PskSettings settings = limits()) {
    std::optional<Status> connected;
    at_client = PskConnection::connect(loop, address, key, settings, [&](Status status) { connected = status; });
    EXPECT_TRUE(eventually([&] { return connected.has_value(); }));
    return connected ? *connected : Error(Code::kInternal, "no answer");
  }
  void connect_both(const Address& address, PskSettings settings = limits()) {
    const Status connected = connect(address, kEpoch7, settings);
    ASSERT_TRUE(connected.ok()) << connected.error().message;
    ASSERT_TRUE(eventually([&] { return at_server != nullptr; }));
  }
  Result<std::string> read(PskConnection& connection) {
    std::optional<Result<std::string>> got;
    connection.read([&](Result<std::string> message) { got = std::move(message); });
    EXPECT_TRUE(eventually([&] { return got.has_value(); }));
    return got ? *got : Error(Code::kInternal, "nothing was read");
  }
};

TEST_F(PskContract, messages_and_bodies_share_a_stream_in_order) {
  listen({kEpoch7});
  ASSERT_NO_FATAL_FAILURE(connect_both(server->address()));
  EXPECT_EQ(at_server->identity(), kEpoch7.identity);
  EXPECT_EQ(at_server->peer().host, "127.0.0.1");
  const std::string body = random_bytes(1'000'000);
  bool sent = false;
  at_client->send("file follows");
  at_client->send_bytes(bytes_of(body), [&](Status status) { sent = status.ok(); });
  at_client->send("that was it");
  EXPECT_EQ(*read(*at_server), "file follows");
  std::string got(body.size(), '\0');
  bool received = false;
  at_server->read_bytes(bytes_of(got), [&](Status status) { received = status.ok(); });
  ASSERT_TRUE(eventually([&] { return received; }));
  EXPECT_EQ(*read(*at_server), "that was it");
  EXPECT_TRUE(sent);
  EXPECT_EQ(got, body);
  at_server->send("");
  EXPECT_EQ(*read(*at_client), "");
}

TEST_F(PskContract, several_keys_are_valid_at_once_and_can_be_changed) {
  listen({kEpoch7, kEpoch8});
  EXPECT_TRUE(connect(server->address(), kEpoch8).ok());
  ASSERT_TRUE(eventually([&] { return at_server != nullptr; }));
  EXPECT_EQ(at_server->identity(), kEpoch8.identity);
  ASSERT_TRUE(server->set_keys({kEpoch7}).ok());
  PskConnection::Ptr old = std::move(at_client);
  old->send("still here");
  EXPECT_EQ(*read(*at_server), "still here");
  EXPECT_EQ(connect(server->address(), kEpoch8).error().code, Code::kUnauthenticated);
}

TEST_F(PskContract, another_key_under_the_same_identity_is_refused) {
  listen({kEpoch7});
  const Status status = connect(server->address(), {kEpoch7.identity, key_of("another job")});
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, Code::kUnauthenticated) << status.error().message;
  EXPECT_TRUE(eventually([&] { return server->refused_handshakes() == 1; }));
  EXPECT_EQ(at_server, nullptr);
}

TEST_F(PskContract, a_server_with_another_key_is_refused_by_the_client) {
  listen({{kEpoch7.identity, key_of("not the epoch's")}});
  EXPECT_FALSE(connect(server->address(), kEpoch7).ok());
}

TEST_F(PskContract, a_server_with_a_certificate_is_refused_by_the_client) {
  ChannelServer channel;
  channel.listen(loop);
  const Status status = connect(channel.server->address(), kEpoch7);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, Code::kUnauthenticated) << status.error().message;
}

TEST_F(PskContract, a_peer_that_does_not_speak_tls_is_refused) {
  listen({kEpoch7});
  RawClient raw(loop, server->address());
  raw.send("GET / HTTP/1.1\r\n\r\n");
  ASSERT_TRUE(eventually([&] { return raw.finished(); }));
  EXPECT_EQ(server->refused_handshakes(), 1u);
}

TEST_F(PskContract, a_handshake_that_is_too_slow_is_closed) {
  auto settings = limits();
  settings.handshake_timeout = milliseconds(100);
  listen({kEpoch7}, settings);
  RawClient raw(loop, server->address());
  EXPECT_TRUE(eventually([&] { return raw.finished(); }));
  EXPECT_EQ(server->refused_handshakes(), 1u);
}

TEST_F(PskContract, a_key_of_another_length_is_an_error_that_says_so) {
  PskServer::Settings settings;
  settings.address = kLoopback;
  const auto made = PskServer::listen(loop, settings, {{"a", "short"}}, [](PskConnection::Ptr) {});
  ASSERT_FALSE(made.ok());
  EXPECT_THAT(made.error().message, HasSubstr("5 bytes, not 32"));
  EXPECT_EQ(connect({"127.0.0.1", 1}, {"a", "short"}).error().code, Code::kInvalidArgument);
}

TEST_F(PskContract, a_message_above_the_limit_is_neither_sent_nor_taken) {
  auto settings = limits();
  settings.max_message_bytes = 100;
  listen({kEpoch7}, settings);
  ASSERT_NO_FATAL_FAILURE(connect_both(server->address()));
  std::optional<Status> sent;
  at_server->send(std::string(101, 'x'), [&](Status status) { sent = status; });
  ASSERT_TRUE(eventually([&] { return sent.has_value(); }));
  EXPECT_EQ(sent->error().code, Code::kResourceExhausted);
  EXPECT_TRUE(at_server->open());
  at_client->send(std::string(101, 'x'));
  EXPECT_EQ(read(*at_server).error().code, Code::kResourceExhausted);
  EXPECT_FALSE(at_server->open());
}

TEST_F(PskContract, a_peer_that_falls_silent_ends_the_read_and_the_write_at_their_limit) {
  auto settings = limits();
  settings.io_timeout = milliseconds(300);
  listen({kEpoch7}, settings);
  TcpGate gate(loop, server->address(), Random(kSeed));
  ASSERT_NO_FATAL_FAILURE(connect_both(gate.address(), settings));
  gate.stop_both(true);
  EXPECT_EQ(read(*at_server).error().code, Code::kDeadlineExceeded);
  const std::string body(50'000'000, 'x');
  std::optional<Status> sent;
  at_client->send_bytes(bytes_of(body), [&](Status status) { sent = status; });
  ASSERT_TRUE(eventually([&] { return sent.has_value(); }));
  EXPECT_EQ(sent->error().code, Code::kDeadlineExceeded);
}

TEST_F(PskContract, waiting_for_the_next_request_has_no_limit) {
  auto settings = limits();
  settings.io_timeout = milliseconds(50);
  listen({kEpoch7}, settings);
  ASSERT_NO_FATAL_FAILURE(connect_both(server->address()));
  std::optional<Result<std::string>> got;
  at_server->read_idle([&](Result<std::string> message) { got = std::move(message); });
  loop.run_until([] { return false; }, milliseconds(300));
  EXPECT_FALSE(got);
  at_client->send("here");
  ASSERT_TRUE(eventually([&] { return got.has_value(); }));
  EXPECT_EQ(**got, "here");
}

TEST_F(PskContract, a_close_delivers_what_was_sent_and_then_says_closed) {
  listen({kEpoch7});
  ASSERT_NO_FATAL_FAILURE(connect_both(server->address()));
  at_client->send("one");
  at_client->send("two");
  at_client->close();
  EXPECT_EQ(*read(*at_server), "one");
  EXPECT_EQ(*read(*at_server), "two");
  EXPECT_THAT(read(*at_server).error().message, HasSubstr("closed by the peer"));
}

TEST_F(PskContract, a_cut_or_corrupted_body_is_an_error_and_never_a_short_or_wrong_body) {
  for (const bool corrupted : {true, false}) {
    listen({kEpoch7});
    at_server.reset();
    TcpGate gate(loop, server->address(), Random(kSeed));
    ASSERT_NO_FATAL_FAILURE(connect_both(gate.address()));
    const std::string body = random_bytes(500'000);
    std::string got(body.size(), '\0');
    std::optional<Status> received;
    at_server->read_bytes(bytes_of(got), [&](Status status) { received = status; });
    if (corrupted) {
      gate.corrupt_next(Direction::kToServer);
    } else {
      gate.cut_after(Direction::kToServer, 200'000);
    }
    at_client->send_bytes(bytes_of(body), [](Status) {});
    ASSERT_TRUE(eventually([&] { return received.has_value(); }));
    EXPECT_FALSE(received->ok()) << corrupted;
  }
}

TEST_F(PskContract, a_half_closed_stream_ends_the_read_with_an_error) {
  listen({kEpoch7});
  TcpGate gate(loop, server->address(), Random(kSeed));
  ASSERT_NO_FATAL_FAILURE(connect_both(gate.address()));
  gate.half_close(Direction::kToServer);
  EXPECT_THAT(read(*at_server).error().message, HasSubstr("cut by the peer"));
}

TEST_F(PskContract, a_connection_may_be_destroyed_by_its_own_functions) {
  listen({kEpoch7});
  ASSERT_NO_FATAL_FAILURE(connect_both(server->address()));
  bool called = false;
  at_server->read([&](Result<std::string>) {
    called = true;
    at_server.reset();
  });
  at_client->send("x");
  ASSERT_TRUE(eventually([&] { return called; }));
  EXPECT_FALSE(read(*at_client).ok());
}

// 1 GiB in release builds; sanitizers and debug builds make do with less, the question is the same.
#ifdef NDEBUG
constexpr size_t kBulkPieces = 1024;
#else
constexpr size_t kBulkPieces = 256;
#endif

TEST_F(PskContract, a_large_copy_to_a_slow_reader_does_not_grow_memory) {
  listen({kEpoch7});
  ASSERT_NO_FATAL_FAILURE(connect_both(server->address()));
  const std::string piece = random_bytes(1024 * 1024);
  std::string got(1024 * 1024, '\0');
  size_t sent = 0;
  size_t received = 0;
  std::function<void()> send_next = [&] {
    if (sent == kBulkPieces) return;
    at_client->send_bytes(bytes_of(piece), [&](Status status) {
      ASSERT_TRUE(status.ok()) << status.error().message;
      ++sent;
      send_next();
    });
  };
  std::function<void()> read_next = [&] {
    if (received == kBulkPieces) return;
    at_server->read_bytes(bytes_of(got), [&](Status status) {
      ASSERT_TRUE(status.ok()) << status.error().message;
      ++received;
      read_next();
    });
  };
  send_next();
  // The reader begins late: the writer stands still meanwhile.
  loop.run_until([] { return false; }, milliseconds(200));
  EXPECT_LT(sent, kBulkPieces);
  const size_t before = anonymous_bytes();
  const Instant begin = loop.now();
  read_next();
  ASSERT_TRUE(loop.run_until([&] { return received == kBulkPieces; }, minutes(5)));
  const size_t after = anonymous_bytes();
  EXPECT_EQ(got, piece);
  RecordProperty("megabytes_per_second",
                 std::to_string(static_cast<double>(kBulkPieces) * 1.048576 / to_seconds(loop.now() - begin)));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // which keep freed memory for a while
  EXPECT_LT(after, before + 8 * 1024 * 1024);
#else
  static_cast<void>(before + after);
#endif
}

}  // namespace
}  // namespace pitcrew::net::testing
