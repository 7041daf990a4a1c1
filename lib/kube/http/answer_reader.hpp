#pragma once

#include <optional>
#include <string>

#include "lib/base/log.hpp"
#include "lib/kube/http/json_slicer.hpp"
#include "lib/kube/transport/transport.hpp"
#include "lib/net/http_message.hpp"

namespace pitcrew::kube {

// What every HTTP request to one API server carries.
struct WireIdentity {
  std::string user_agent;
  std::string prefix;  // of the path
  std::string impersonate;
  std::vector<std::string> impersonate_groups;
};
std::string default_user_agent();
net::HttpRequest wire_request(const Request& request, const WireIdentity& identity, const std::string& token);

// Makes a Response of an HTTP answer as it comes: a list's items one by one, anything else as a whole and bounded.
// Belongs to one exchange; on its loop.
class AnswerReader {
 public:
  // The request must outlive it.
  AnswerReader(const Request& request, size_t max_object_bytes) : request_(request), limit_(max_object_bytes) {}
  AnswerReader(const AnswerReader&) = delete;
  AnswerReader& operator=(const AnswerReader&) = delete;

  void head(int status, const net::Headers& headers, Instant now, const Logger& log);
  Status piece(std::string_view bytes);
  // The body has ended.
  Result<Response> end();
  int status() const { return response_.status; }

 private:
  const Request& request_;
  size_t limit_;
  Response response_{.status = 0};  // until the head is there
  std::string body_;
  std::optional<JsonSlicer> items_;
};

}  // namespace pitcrew::kube
