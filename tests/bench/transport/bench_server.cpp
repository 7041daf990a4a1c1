#include "tests/bench/transport/bench_server.hpp"

#include <cstdio>
#include <cstdlib>

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/clock.hpp"
#include "lib/kube/types/pod.hpp"
#include "lib/local/http/http_api.hpp"

namespace pitcrew::bench {
namespace {

template <typename T>
T must(Result<T> result) {
  if (!result) {
    std::fprintf(stderr, "%s\n", result.error().message.c_str());
    std::exit(1);
  }
  return *std::move(result);
}

// About 7.3 kB of text as a real pod's, 43 % of it managedFields (reference 4.2).
Json pod_like_a_real_one(int number) {
  const std::string name = "worker-" + std::to_string(number);
  Json env = Json::array();
  for (int i = 0; i < 24; ++i)
    env.push_back(
        {{"name", "VARIABLE_" + std::to_string(i)}, {"value", "some value of usual length " + std::to_string(i)}});
  Json mounts = Json::array();
  for (int i = 0; i < 8; ++i)
    mounts.push_back({{"name", "volume-" + std::to_string(i)}, {"mountPath", "/mnt/volume-" + std::to_string(i)}});
  Json fields = Json::object();
  for (int i = 0; i < 46; ++i) {
    fields["f:spec"]["f:containers"]["k:{\"name\":\"main\"}"]["f:env"]
          ["k:{\"name\":\"VARIABLE_" + std::to_string(i) + "\"}"] = {
              {".", Json::object()}, {"f:name", Json::object()}, {"f:value", Json::object()}};
  }
  return {
      {"apiVersion", "v1"},
      {"kind", "Pod"},
      {"metadata",
       {{"name", name},
        {"namespace", "bench"},
        {"uid", "00000000-0000-4000-8000-" + std::to_string(100'000'000'000 + number)},
        {"resourceVersion", std::to_string(2 + number)},
        {"creationTimestamp", "2026-01-01T00:00:00Z"},
        {"labels", {{"app", "bench"}, {"job", "job-" + std::to_string(number / 64)}}},
        {"managedFields",
         Json::array({{{"manager", "kube-controller-manager"}, {"operation", "Update"}, {"fieldsV1", fields}}})}}},
      {"spec",
       {{"nodeName", "node-" + std::to_string(number % 600)},
        {"containers", Json::array({{{"name", "main"},
                                     {"image", "registry.example.com/team/trainer:1.2.3"},
                                     {"resources", {{"requests", {{"cpu", "4"}, {"memory", "16Gi"}}}}},
                                     {"env", std::move(env)},
                                     {"volumeMounts", std::move(mounts)}}})}}},
      {"status",
       {{"phase", "Running"},
        {"podIP", "10.0.0.1"},
        {"hostIP", "10.1.0.1"},
        {"conditions",
         Json::array({{{"type", "Ready"}, {"status", "True"}}, {{"type", "PodScheduled"}, {"status", "True"}}})},
        {"containerStatuses",
         Json::array(
             {{{"name", "main"}, {"ready", true}, {"restartCount", 0}, {"state", {{"running", Json::object()}}}}})}}}};
}

[[noreturn]] void serve(int pods, int pipe_fd) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  net::AsioLoop loop;
  local::ApiServer server(loop, {.history = 64});
  Json objects = Json::array();
  for (int i = 0; i < pods; ++i) objects.push_back(pod_like_a_real_one(i));
  const Status restored =
      server.restore({{"format", 1}, {"resourceVersion", std::to_string(pods + 10)}, {"objects", std::move(objects)}});
  if (!restored) std::exit(1);
  const Instant now = loop.now();
  const auto authority = must(net::CertificateAuthority::create("bench", {now - hours(1), now + hours(24)}));
  local::HttpApiSettings settings;
  settings.identity = must(authority.issue({{"localhost"}, {"127.0.0.1"}}, {now - hours(1), now + hours(24)}));
  settings.max_stream_queue_bytes = 256 * 1024 * 1024;
  const auto api = must(local::HttpApi::serve(loop, server, std::move(settings)));
  const std::string text = "https://" + to_string(api->address()) + "\n" + authority.certificate_pem();
  if (::write(pipe_fd, text.data(), text.size()) != static_cast<ssize_t>(text.size())) std::exit(1);
  ::close(pipe_fd);
  loop.run();
  std::exit(0);
}

}  // namespace

BenchServer::BenchServer(int pods) {
  int ends[2];
  if (::pipe(ends) != 0) std::abort();
  pid_ = ::fork();
  if (pid_ == 0) {
    ::close(ends[0]);
    serve(pods, ends[1]);
  }
  ::close(ends[1]);
  std::string text;
  char piece[4096];
  for (ssize_t size = 0; (size = ::read(ends[0], piece, sizeof piece)) > 0;)
    text.append(piece, static_cast<size_t>(size));
  ::close(ends[0]);
  const size_t line = text.find('\n');
  if (line == std::string::npos) {
    std::fprintf(stderr, "the server didn't start\n");
    std::exit(1);
  }
  url_ = text.substr(0, line);
  ca_pem_ = text.substr(line + 1);
}

BenchServer::~BenchServer() {
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

}  // namespace pitcrew::bench
