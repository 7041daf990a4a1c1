#include <optional>

#include <gmock/gmock.h>

#include "lib/net/http_client.hpp"
#include "lib/net/http_server.hpp"
#include "tests/contract/net/net_fixture.hpp"
#include "tests/contract/net/raw_client.hpp"

namespace pitcrew::net::testing {
namespace {

using Direction = TcpGate::Direction;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class HttpContract : public NetTest, public ::testing::WithParamInterface<bool> {
 protected:
  bool tls() const { return GetParam(); }

  HttpServerSettings server_settings() const {
    HttpServerSettings settings;
    settings.address = kLoopback;
    if (tls()) settings.identity = server_identity();
    settings.request_timeout = seconds(60);
    return settings;
  }
  void listen(HttpServerSettings settings, HttpHandler handler) {
    auto made = HttpServer::listen(loop, std::move(settings), std::move(handler));
    ASSERT_TRUE(made.ok()) << made.error().message;
    server = *std::move(made);
  }
  HttpClientSettings client_settings(const Address& address) const {
    HttpClientSettings settings;
    settings.address = address;
    if (tls()) settings.trust = trust();
    settings.connect_timeout = seconds(30);
    return settings;
  }
  Result<HttpResponse> ask(HttpRequest request, const Address& address) {
    std::optional<Result<HttpResponse>> answer;
    const auto exchange = http_request(loop, client_settings(address), std::move(request),
                                       {[&](Result<HttpResponse> response) { answer = std::move(response); }});
    EXPECT_TRUE(eventually([&] { return answer.has_value(); }));
    return answer ? *answer : Error(Code::kInternal, "no answer");
  }
  Result<HttpResponse> ask(HttpRequest request) { return ask(std::move(request), server->address()); }

  std::unique_ptr<HttpServer> server;
};
INSTANTIATE_TEST_SUITE_P(Http, HttpContract, ::testing::Bool(),
                         [](const auto& tested) { return tested.param ? "tls" : "plain"; });

TEST_P(HttpContract, a_request_arrives_whole_and_so_does_its_answer) {
  HttpRequest seen;
  listen(server_settings(), [&](HttpRequest request, HttpResponderPtr responder) {
    seen = std::move(request);
    responder->respond({201, {{"X-Answer", "yes\r\nX-Injected: no"}}, std::string(300'000, 'b')});
  });
  HttpRequest request{
      "POST", "/apis/x?watch=1&a=b%20c", {{"Authorization", "Bearer t"}}, std::string(200'000, 'a'), {}};
  const auto answer = ask(request);
  ASSERT_TRUE(answer.ok()) << answer.error().message;
  EXPECT_EQ(answer->status, 201);
  EXPECT_EQ(answer->body, std::string(300'000, 'b'));
  EXPECT_EQ(find_header(answer->headers, "x-injected"), nullptr);
  EXPECT_EQ(seen.method, "POST");
  EXPECT_EQ(seen.path(), "/apis/x");
  EXPECT_EQ(parse_query(seen.query())[1].second, "b c");
  EXPECT_EQ(seen.body, request.body);
  EXPECT_EQ(*find_header(seen.headers, "authorization"), "Bearer t");
}

TEST_P(HttpContract, an_answer_may_come_later_and_a_dropped_responder_is_a_500) {
  HttpResponderPtr waiting;
  listen(server_settings(), [&](HttpRequest request, HttpResponderPtr responder) {
    if (request.path() == "/later") waiting = std::move(responder);
  });
  EXPECT_EQ(ask({"GET", "/dropped", {}, "", {}})->status, 500);
  std::optional<Result<HttpResponse>> answer;
  const auto exchange = http_request(loop, client_settings(server->address()), {"GET", "/later", {}, "", {}},
                                     {[&](Result<HttpResponse> response) { answer = std::move(response); }});
  ASSERT_TRUE(eventually([&] { return waiting != nullptr; }));
  EXPECT_TRUE(waiting->open());
  waiting->respond(text_response(200, "here"));
  ASSERT_TRUE(eventually([&] { return answer.has_value(); }));
  EXPECT_EQ((*answer)->body, "here");
}

TEST_P(HttpContract, a_body_above_the_cap_is_refused_with_413) {
  auto settings = server_settings();
  settings.max_body_bytes = 1000;
  bool called = false;
  listen(settings, [&](HttpRequest, HttpResponderPtr) { called = true; });
  const auto answer = ask({"POST", "/", {}, std::string(100'000, 'x'), {}});
  ASSERT_TRUE(answer.ok()) << answer.error().message;
  EXPECT_EQ(answer->status, 413);
  EXPECT_FALSE(called);
}

TEST_P(HttpContract, a_stream_delivers_its_pieces_as_they_are_written) {
  StreamingResponderPtr stream;
  listen(server_settings(), [&](HttpRequest, HttpResponderPtr responder) {
    stream = responder->stream({200, {{"Content-Type", "application/json"}}, ""});
  });
  std::string got;
  std::optional<Result<HttpResponse>> answer;
  const auto exchange = http_request(loop, client_settings(server->address()), {"GET", "/?watch=1", {}, "", {}},
                                     {[&](Result<HttpResponse> response) { answer = std::move(response); },
                                      [&](std::string_view piece) { got += piece; }});
  ASSERT_TRUE(eventually([&] { return stream != nullptr; }));
  EXPECT_TRUE(stream->write("one\n"));
  ASSERT_TRUE(eventually([&] { return got == "one\n"; }));
  EXPECT_TRUE(stream->write("two\n"));
  ASSERT_TRUE(eventually([&] { return got == "one\ntwo\n"; }));
  EXPECT_FALSE(answer);
  stream->finish();
  ASSERT_TRUE(eventually([&] { return answer.has_value(); }));
  EXPECT_TRUE(answer->ok());
}

TEST_P(HttpContract, a_stream_that_is_dropped_is_an_error_at_the_client) {
  StreamingResponderPtr stream;
  listen(server_settings(), [&](HttpRequest, HttpResponderPtr responder) {
    stream = responder->stream({200, {}, "begin"});
  });
  std::optional<Result<HttpResponse>> answer;
  const auto exchange = http_request(loop, client_settings(server->address()), {},
                                     {[&](Result<HttpResponse> response) { answer = std::move(response); }});
  ASSERT_TRUE(eventually([&] { return stream != nullptr && stream->queued_bytes() == 0; }));
  stream.reset();
  ASSERT_TRUE(eventually([&] { return answer.has_value(); }));
  EXPECT_FALSE(answer->ok());
}

TEST_P(HttpContract, a_stream_learns_that_its_client_has_gone) {
  StreamingResponderPtr stream;
  bool closed = false;
  listen(server_settings(), [&](HttpRequest, HttpResponderPtr responder) {
    stream = responder->stream({});
    stream->on_closed([&] { closed = true; });
  });
  auto exchange = http_request(loop, client_settings(server->address()), {}, {[](Result<HttpResponse>) {}});
  ASSERT_TRUE(eventually([&] { return stream != nullptr; }));
  exchange.reset();
  ASSERT_TRUE(eventually([&] { return closed; }));
  EXPECT_FALSE(stream->write("x"));
  EXPECT_EQ(server->connections(), 0u);
}

TEST_P(HttpContract, a_stream_to_a_client_that_does_not_read_is_cut_at_its_limit) {
  auto settings = server_settings();
  settings.max_stream_queue_bytes = 100'000;
  StreamingResponderPtr stream;
  bool closed = false;
  listen(settings, [&](HttpRequest, HttpResponderPtr responder) {
    stream = responder->stream({});
    stream->on_closed([&] { closed = true; });
  });
  TcpGate gate(loop, server->address(), Random(kSeed));
  const auto exchange = http_request(loop, client_settings(gate.address()), {}, {[](Result<HttpResponse>) {}});
  ASSERT_TRUE(eventually([&] { return stream != nullptr; }));
  gate.stop(Direction::kToClient, true);
  int written = 0;
  while (stream->write(std::string(50'000, 'x'))) {
    ASSERT_LT(++written, 2000);
    loop.run_until([] { return false; }, milliseconds(1));
  }
  EXPECT_TRUE(eventually([&] { return closed; }));
}

TEST_P(HttpContract, a_drained_stream_asks_for_more_so_that_a_long_body_stays_small_in_memory) {
  constexpr size_t kPieces = 500;
  StreamingResponderPtr stream;
  size_t sent = 0;
  size_t most_queued = 0;
  listen(server_settings(), [&](HttpRequest, HttpResponderPtr responder) {
    stream = responder->stream({});
    stream->on_drained([&] {
      if (sent++ == kPieces) return stream->finish();
      stream->write(std::string(10'000, 'x'));
      most_queued = std::max(most_queued, stream->queued_bytes());
    });
  });
  size_t got = 0;
  bool done = false;
  const auto exchange = http_request(loop, client_settings(server->address()), {},
                                     {[&](Result<HttpResponse> response) { done = response.ok(); },
                                      [&](std::string_view piece) { got += piece.size(); }});
  ASSERT_TRUE(eventually([&] { return done; }));
  EXPECT_EQ(got, kPieces * 10'000);
  EXPECT_LT(most_queued, 30'000u);
}

TEST_P(HttpContract, a_sliced_and_delayed_exchange_arrives_whole) {
  listen(server_settings(), [&](HttpRequest request, HttpResponderPtr responder) {
    responder->respond(text_response(200, std::move(request.body)));
  });
  TcpGate gate(loop, server->address(), Random(kSeed));
  gate.slice(11);
  gate.delay(milliseconds(1));
  const auto answer = ask({"PUT", "/", {}, std::string(5000, 'q'), {}}, gate.address());
  ASSERT_TRUE(answer.ok()) << answer.error().message;
  EXPECT_EQ(answer->body, std::string(5000, 'q'));
}

TEST_P(HttpContract, an_answer_that_is_cut_short_is_an_error) {
  listen(server_settings(), [&](HttpRequest, HttpResponderPtr responder) {
    responder->respond(text_response(200, std::string(100'000, 'x')));
  });
  TcpGate gate(loop, server->address(), Random(kSeed));
  gate.slice(1000);
  gate.cut_after(Direction::kToClient, 50'000);
  EXPECT_FALSE(ask({}, gate.address()).ok());
}

TEST_P(HttpContract, a_client_waits_no_longer_than_its_limit) {
  HttpResponderPtr waiting;
  listen(server_settings(), [&](HttpRequest, HttpResponderPtr responder) { waiting = std::move(responder); });
  auto settings = client_settings(server->address());
  settings.timeout = milliseconds(100);
  std::optional<Result<HttpResponse>> answer;
  const auto exchange =
      http_request(loop, settings, {}, {[&](Result<HttpResponse> response) { answer = std::move(response); }});
  ASSERT_TRUE(eventually([&] { return answer.has_value(); }));
  EXPECT_EQ(answer->error().code, Code::kDeadlineExceeded);
}

TEST_P(HttpContract, a_server_may_be_destroyed_by_its_own_handler) {
  listen(server_settings(), [&](HttpRequest, HttpResponderPtr) { server.reset(); });
  std::optional<Result<HttpResponse>> answer;
  const auto exchange = http_request(loop, client_settings(server->address()), {},
                                     {[&](Result<HttpResponse> response) { answer = std::move(response); }});
  ASSERT_TRUE(eventually([&] { return answer.has_value(); }));
  EXPECT_FALSE(answer->ok());
}

class RawHttp : public NetTest {
 protected:
  std::unique_ptr<HttpServer> server;
  int handled = 0;

  void listen(HttpServerSettings settings) {
    settings.address = kLoopback;
    server = *HttpServer::listen(loop, settings, [this](HttpRequest request, HttpResponderPtr responder) {
      ++handled;
      responder->respond(text_response(200, request.method + " " + request.target + "\n"));
    });
  }
};

TEST_F(RawHttp, requests_sent_ahead_on_one_connection_are_answered_in_order) {
  listen({});
  RawClient client(loop, server->address());
  client.send(
      "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\nGET /3 HTTP/1.1\r\nHost: x\r\nConnection: "
      "close\r\n\r\n");
  ASSERT_TRUE(eventually([&] { return client.finished(); }));
  EXPECT_THAT(client.received(), ::testing::ContainsRegex("GET /1(.|\n)*GET /2(.|\n)*GET /3"));
  EXPECT_EQ(handled, 3);
}

TEST_F(RawHttp, what_is_no_http_is_answered_with_400_and_closed) {
  listen({});
  RawClient client(loop, server->address());
  client.send("\x16\x03\x01 this is a TLS hello\r\n\r\n");
  ASSERT_TRUE(eventually([&] { return client.finished(); }));
  EXPECT_THAT(client.received(), StartsWith("HTTP/1.1 400"));
}

TEST_F(RawHttp, a_head_above_the_cap_is_refused_with_431) {
  HttpServerSettings settings;
  settings.max_head_bytes = 1024;
  listen(settings);
  RawClient client(loop, server->address());
  client.send("GET / HTTP/1.1\r\nHost: x\r\nX: " + std::string(5000, 'y') + "\r\n\r\n");
  ASSERT_TRUE(eventually([&] { return client.finished(); }));
  EXPECT_THAT(client.received(), StartsWith("HTTP/1.1 431"));
}

TEST_F(RawHttp, half_a_request_is_refused_when_its_time_is_over) {
  HttpServerSettings settings;
  settings.request_timeout = seconds(1);
  listen(settings);
  RawClient silent(loop, server->address());
  RawClient slow(loop, server->address());
  slow.send("GET / HT");
  ASSERT_TRUE(eventually([&] { return silent.finished() && slow.finished(); }));
  EXPECT_EQ(silent.received(), "");
  EXPECT_THAT(slow.received(), StartsWith("HTTP/1.1 408"));
}

TEST_F(RawHttp, an_idle_connection_is_closed) {
  HttpServerSettings settings;
  settings.idle_timeout = milliseconds(100);
  listen(settings);
  RawClient client(loop, server->address());
  client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_TRUE(eventually([&] { return client.finished(); }));
  EXPECT_THAT(client.received(), HasSubstr("GET /"));
}

TEST_F(RawHttp, head_is_answered_without_a_body_and_an_expected_100_is_sent) {
  listen({});
  RawClient head(loop, server->address());
  head.send("HEAD /h HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  ASSERT_TRUE(eventually([&] { return head.finished(); }));
  EXPECT_THAT(head.received(), HasSubstr("Content-Length: 8"));
  EXPECT_THAT(head.received(), ::testing::EndsWith("\r\n\r\n"));
  RawClient expecting(loop, server->address());
  expecting.send(
      "PUT /p HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n");
  ASSERT_TRUE(eventually([&] { return expecting.received().find("100 Continue") != std::string::npos; }));
  expecting.send("abc");
  ASSERT_TRUE(eventually([&] { return expecting.finished(); }));
  EXPECT_THAT(expecting.received(), HasSubstr("200 OK"));
}

TEST_F(RawHttp, connections_above_the_cap_are_closed_and_counted) {
  HttpServerSettings settings;
  settings.max_connections = 2;
  listen(settings);
  RawClient first(loop, server->address());
  RawClient second(loop, server->address());
  ASSERT_TRUE(eventually([&] { return server->connections() == 2; }));
  RawClient third(loop, server->address());
  ASSERT_TRUE(eventually([&] { return third.finished(); }));
  EXPECT_EQ(server->refused_connections(), 1u);
}

TEST_F(RawHttp, every_interface_means_ipv4_and_ipv6) {
  HttpServerSettings settings;
  settings.address = {"", 0};
  server = *HttpServer::listen(loop, settings, [](HttpRequest request, HttpResponderPtr responder) {
    responder->respond(text_response(200, request.peer.host));
  });
  RawClient v4(loop, {"127.0.0.1", server->address().port});
  v4.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  ASSERT_TRUE(eventually([&] { return v4.finished(); }));
  EXPECT_THAT(v4.received(), ::testing::EndsWith("127.0.0.1"));
  if (server->address().host != "::") GTEST_SKIP() << "this kernel has no IPv6";
  RawClient v6(loop, {"::1", server->address().port});
  v6.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  ASSERT_TRUE(eventually([&] { return v6.finished(); }));
  EXPECT_THAT(v6.received(), ::testing::EndsWith("::1"));
}

}  // namespace
}  // namespace pitcrew::net::testing
