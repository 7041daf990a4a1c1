#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "lib/base/log.hpp"
#include "lib/local/api/api_server.hpp"
#include "lib/net/http_server.hpp"

namespace pitcrew::local {

using Answer = std::function<void(net::HttpResponse)>;

struct HttpApiSettings {
  net::Address address{"127.0.0.1", 0};
  std::optional<net::TlsServerIdentity> identity;  // set: TLS; with client_ca_pem clients must show a certificate
  size_t max_connections = 256;
  size_t max_stream_queue_bytes = 64 * 1024 * 1024;  // of one watch whose client is slow
  // Whether a bearer token gets in ("" where there was none); unset: everybody.
  std::function<bool(const std::string& token)> authenticate;
  // Answers in the place of the server, for tests; nothing: the server answers.
  std::function<std::optional<net::HttpResponse>(const net::HttpRequest& request)> intercept;
  // Answers for pods what only their nodes know (log, proxy), at once or later; false: not its business. Asked after
  // `authenticate`.
  std::function<bool(const net::HttpRequest& request, const Answer& answer)> pods;
};

// An ApiServer behind HTTP, at Kubernetes' paths: what kubectl and every client's transport sees of it. Lives on the
// loop of the server, which must outlive it; destroying it closes all connections.
class HttpApi {
 public:
  static Result<std::unique_ptr<HttpApi>> serve(net::AsioLoop& loop, ApiServer& server, HttpApiSettings settings,
                                                Logger log = {});
  ~HttpApi();
  HttpApi(const HttpApi&) = delete;
  HttpApi& operator=(const HttpApi&) = delete;

  net::Address address() const;
  Status set_identity(const net::TlsServerIdentity& identity);
  size_t watches() const;

 private:
  class Impl;
  explicit HttpApi(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<Impl> impl_;
};

// The request at a REST path: /api/v1/namespaces/a/pods/x/status?dryRun=All. An error (kNotFound, kUnsupported) where
// there is no such path or method.
Result<kube::Request> parse_request(const net::HttpRequest& http);

}  // namespace pitcrew::local
