#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "lib/base/result.hpp"
#include "lib/base/time.hpp"

namespace pitcrew::net {
class AsioLoop;
}

namespace pitcrew::control {

struct WebhookSettings {
  Duration timeout = seconds(10);                            // to the answer's end
  std::string roots = "/etc/ssl/certs/ca-certificates.crt";  // PEM file: whose servers are believed
};

// Calls a webhook: POSTs of JSON to http:// or https:// URLs; a server's certificate must be of one of the roots and
// carry the URL's host. An answer other than 2xx is an error (kUnavailable), as is none in time. Lives on the
// loop; destroying it drops what is under way.
class Webhook {
 public:
  explicit Webhook(net::AsioLoop& loop, WebhookSettings settings = {});
  ~Webhook();
  Webhook(const Webhook&) = delete;

  void post(const std::string& url, const std::string& body, std::function<void(Status)> done);

 private:
  struct Call;
  net::AsioLoop& loop_;
  const WebhookSettings settings_;
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
