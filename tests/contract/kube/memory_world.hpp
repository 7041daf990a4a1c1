#pragma once

#include <optional>

#include <gtest/gtest.h>

#include "lib/kube/client/client.hpp"
#include "lib/kube/types/pod.hpp"
#include "lib/local/api/memory_transport.hpp"

namespace pitcrew::contract {

// A virtual loop with an API server in memory and one client's way to it, which tests break.
class MemoryWorld : public testing::Test {
 protected:
  static Json pod(const std::string& name) {
    return {{"metadata", {{"name", name}, {"namespace", "ns"}}}, {"spec", Json::object()}};
  }

  // Straight to the server, past all faults.
  kube::Response direct(kube::Verb verb, const std::string& name, Json body = nullptr) {
    kube::Request request{.verb = verb, .type = kube::Pod::type(), .key = {"ns", name}};
    if (!body.is_null()) request.body = kube::Payload::of(std::move(body));
    return server.handle(request);
  }
  void create_pod(const std::string& name) { direct(kube::Verb::kCreate, "", pod(name)); }
  void delete_pod(const std::string& name) { direct(kube::Verb::kDelete, name); }
  void label_pod(const std::string& name, const std::string& value) {
    direct(kube::Verb::kPatch, name, {{"metadata", {{"labels", {{"l", value}}}}}});
  }

  // Faults for the next requests of a verb; the rest are served.
  void fail(kube::Verb verb, int times, local::RequestFault fault) {
    transport.set_faults(
        [verb, times, fault](const kube::Request& request) mutable {
          if (request.verb != verb || times <= 0) return local::RequestFault{};
          --times;
          return fault;
        },
        watch_faults);
  }

  VirtualLoop loop;
  local::ApiServer server{loop};
  local::MemoryTransport transport{loop, server};
  local::MemoryTransport::WatchFaults watch_faults;
};

}  // namespace pitcrew::contract
