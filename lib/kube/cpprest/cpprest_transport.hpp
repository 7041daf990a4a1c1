#pragma once

#include <memory>

#include "lib/kube/http/http_transport.hpp"

namespace pitcrew::kube {

struct CpprestSettings {
  size_t threads = 2;  // of cpprestsdk's pool, which is the process's: the first transport decides
  HttpTransportSettings http;
};

// Calls through cpprestsdk, watches through an HttpTransport of its own. What cpprestsdk does on its own account is
// turned off here (docs/design/0004): its forty threads, redirects, the system's roots, resending of writes, bodies
// without a limit, exceptions that nobody looks at. IPv6 literals, which it can't reach, go to the HttpTransport too.
//
// Lives on an AsioLoop: callbacks come from it, whatever thread cpprestsdk was on. Destroying it cancels what is under
// way and waits for cpprestsdk's threads to let go of it.
class CpprestTransport final : public Transport {
 public:
  static Result<std::unique_ptr<CpprestTransport>> create(net::AsioLoop& loop, const ClusterConfig& config,
                                                          CpprestSettings settings = {}, Logger log = {});
  ~CpprestTransport() override;

  [[nodiscard]] CallPtr send(Request request, Answer answer) override;
  [[nodiscard]] CallPtr watch(Request request, WatchSink sink) override;

 private:
  class Impl;
  explicit CpprestTransport(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace pitcrew::kube
