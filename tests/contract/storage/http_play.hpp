#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace pitcrew::trainer::testing {

// An HTTP server for tests that plays a part: it answers as it is told, or hands a request on to a real server and
// brings its answer back, or loses it. One request a connection. Its threads end with it.
class HttpPlay {
 public:
  struct Request {
    std::string method;
    std::string target;
    std::map<std::string, std::string> headers;  // names in lower case
    std::string body;
  };
  struct Action {
    enum class Kind {
      kAnswer,
      kForward,
      kForwardAndLose,  // the server does it, and the connection is cut before its answer
    } kind = Kind::kForward;
    int status = 200;
    std::string body = {};
    std::map<std::string, std::string> headers = {};
  };
  using Play = std::function<Action(const Request& request)>;

  // `server_port`: of 127.0.0.1, for what is handed on.
  explicit HttpPlay(Play play, uint16_t server_port = 0);
  ~HttpPlay();
  HttpPlay(const HttpPlay&) = delete;
  HttpPlay& operator=(const HttpPlay&) = delete;

  uint16_t port() const { return port_; }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  std::vector<Request> seen() const;

 private:
  void serve(int connection);

  const Play play_;
  const uint16_t server_port_;
  int listener_ = -1;
  uint16_t port_ = 0;
  mutable std::mutex mutex_;
  std::vector<Request> seen_;
  std::vector<std::jthread> connections_;
  std::jthread accepting_;
};

}  // namespace pitcrew::trainer::testing
