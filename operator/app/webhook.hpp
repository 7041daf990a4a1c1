#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "lib/base/result.hpp"

namespace pitcrew::net {
class AsioLoop;
}

namespace pitcrew::control {

// Calls a webhook: one POST of JSON to an http:// or https:// URL at a time; a server's certificate is checked against
// the system's roots. An answer other than 2xx is an error. Lives on the loop; destroying it drops what is under way.
class Webhook {
 public:
  explicit Webhook(net::AsioLoop& loop);
  ~Webhook();
  Webhook(const Webhook&) = delete;

  void post(const std::string& url, const std::string& body, std::function<void(Status)> done);

 private:
  struct Call;
  net::AsioLoop& loop_;
  std::shared_ptr<std::map<uint64_t, std::shared_ptr<Call>>> calls_;
  uint64_t next_ = 0;
};

// Where a URL leads.
struct WebhookUrl {
  bool tls = false;
  std::string host;
  uint16_t port = 0;
  std::string target;  // path and query
};
Result<WebhookUrl> parse_webhook(const std::string& url);

}  // namespace pitcrew::control
