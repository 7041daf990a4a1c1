#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "lib/base/result.hpp"
#include "lib/base/time.hpp"

namespace pitcrew::trainer::s3 {

struct HttpRequest {
  std::string method = "GET";
  std::string url;  // whole and encoded
  std::map<std::string, std::string> headers = {};
  std::span<const std::byte> body = {};
  std::optional<Duration> quiet_for = {};  // instead of Settings::slow_for, where the server works long
  bool direct = false;                     // past any proxy
  std::span<std::byte> into = {};  // a 2xx answer's body goes here; it must be as long. Empty: into HttpAnswer::body
};

struct HttpAnswer {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // at most kMaxBody bytes
};

// HTTP over libcurl, which brings TLS, proxies and addresses. Connections are kept and used again. Thread-safe: as many
// requests at a time as there are threads that ask.
class Http {
 public:
  struct Settings {
    Duration connect_within = seconds(10);
    // A transfer that moved less than slow_bytes a second for so long is given up, so that it is tried again elsewhere.
    Duration slow_for = seconds(20);
    long slow_bytes = 1024;
  };
  static constexpr size_t kMaxBody = size_t{64} << 20;

  explicit Http(Settings settings);
  ~Http();
  Http(const Http&) = delete;
  Http& operator=(const Http&) = delete;

  // An answer of any status, or why there was none: kUnavailable (nobody answered, the connection was cut or too slow),
  // kCancelled (after abort()), kInvalidArgument (the URL or the certificate is wrong).
  Result<HttpAnswer> send(const HttpRequest& request);

  // Ends what is under way; what is sent from now on fails at once.
  void abort();
  bool aborted() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace pitcrew::trainer::s3
