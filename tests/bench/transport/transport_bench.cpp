// The transports beside one another and beside the bare connection pool ("raw": the same bytes over the same TLS, not
// looked at), in one run, taking turns.
//
//   transport_bench [PODS [ROUNDS]]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>

#include <malloc.h>
#include <sys/resource.h>

#include "lib/kube/cache/informer.hpp"
#include "lib/kube/cpprest/cpprest_transport.hpp"
#include "lib/kube/types/pod.hpp"
#include "lib/net/http_pool.hpp"
#include "tests/bench/transport/bench_server.hpp"

namespace pitcrew::bench {
namespace {

using kube::Payload;
using kube::Pod;
using kube::Request;
using kube::Verb;
using Watch = std::chrono::steady_clock;

constexpr Duration kCap = minutes(5);

template <typename T>
T must(Result<T> result) {
  if (!result) {
    std::fprintf(stderr, "%s\n", result.error().message.c_str());
    std::exit(1);
  }
  return *std::move(result);
}

double cpu_seconds() {
  struct rusage used {};
  ::getrusage(RUSAGE_SELF, &used);
  const auto of = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return of(used.ru_utime) + of(used.ru_stime);
}

// A line of /proc/self/status, in MB.
double memory_mb(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(name + ":", 0) == 0) return std::strtod(line.c_str() + name.size() + 1, nullptr) / 1024;
  }
  return 0;
}
void reset_peak() { std::ofstream("/proc/self/clear_refs") << "5"; }

struct Sample {
  double wall = 0;  // seconds
  double cpu = 0;   // of this process
  double peak = 0;  // MB above what it was
};

class Bench {
 public:
  Bench(const std::string& url, const std::string& ca, int pods) : pods_(pods) {
    config_.name = "bench";
    config_.server = url;
    config_.ca_pem = ca;
    config_.tls_server_name = "localhost";
    beast_ = must(kube::HttpTransport::create(loop_, config_));
    cpprest_ = must(kube::CpprestTransport::create(loop_, config_));
    const auto parsed = must(kube::parse_server_url(url));
    net::HttpPoolSettings pool{.host = parsed.host, .port = parsed.port};
    const auto tls = must(net::TlsClient::make({.ca_bundle_pem = ca, .server_name = "localhost"}));
    pool.tls = [tls] { return tls; };
    pool_ = std::make_unique<net::HttpPool>(loop_, std::move(pool));
  }

  void run(int rounds) {
    const std::map<std::string, std::function<void()>> lists{
        {"raw", [&] { raw(kube::target(list()), false); }},
        {"beast, structs", [&] { list_with(*beast_, true); }},
        {"beast, trees", [&] { list_with(*beast_, false); }},
        {"cpprest, structs", [&] { list_with(*cpprest_, true); }},
    };
    report("list of " + std::to_string(pods_) + " pods", "raw", 1, "lists", rounds, lists);
    const std::map<std::string, std::function<void()>> watches{
        {"raw", [&] { raw(kube::target(list()) + "?watch=1&timeoutSeconds=600", true); }},
        {"beast, structs", [&] { watch_with(true); }},
        {"beast, text", [&] { watch_with(false); }},
    };
    report("watch events", "raw", pods_, "events", rounds, watches);
    constexpr int kCalls = 1000;
    for (const int at_once : {1, 16}) {
      const std::map<std::string, std::function<void()>> calls{
          {"raw", [&] { repeat(kCalls, at_once, [&](auto done) { raw_get(done); }); }},
          {"beast", [&] { repeat(kCalls, at_once, [&](auto done) { get_with(*beast_, done); }); }},
          {"cpprest", [&] { repeat(kCalls, at_once, [&](auto done) { get_with(*cpprest_, done); }); }},
      };
      report("get of one object, " + std::to_string(at_once) + " at once", "raw", kCalls, "calls", rounds, calls);
    }
    cache();
  }

 private:
  Request list() const { return {.verb = Verb::kList, .type = Pod::type(), .key = {"bench", ""}, .timeout = kCap}; }
  static Request get() { return {.verb = Verb::kGet, .type = Pod::type(), .key = {"bench", "absent"}}; }

  void wait(const bool& done) {
    if (!loop_.run_until([&] { return done; }, kCap)) {
      std::fprintf(stderr, "no end within %s\n", to_string(kCap).c_str());
      std::exit(1);
    }
  }

  // Counts bytes, or events by their lines.
  void raw(const std::string& target, bool stream) {
    bool done = false;
    int lines = 0;
    net::HttpPoolCall call{.request = {.target = target}, .repeatable = true, .long_lived = stream, .timeout = kCap};
    const auto exchange =
        pool_->send(std::move(call), {.on_piece =
                                          [&](std::string_view piece) {
                                            if (stream) {
                                              lines += static_cast<int>(std::count(piece.begin(), piece.end(), '\n'));
                                              done = lines == pods_;
                                            }
                                            return Status();
                                          },
                                      .on_end = [&](const Status& status) { done = done || status.ok(); }});
    wait(done);
  }
  void raw_get(std::function<void()> done) {
    auto held = std::make_shared<net::HttpExchangePtr>();
    *held = pool_->send({.request = {.target = kube::target(get())}, .repeatable = true},
                        {.on_end = [held, done](const Status&) { done(); }});
  }

  void list_with(kube::Transport& transport, bool structs) {
    bool done = false;
    Request request = list();
    if (structs) request.reduce = [](const Payload& object) { object.reduce_to<Pod>(); };
    std::vector<std::shared_ptr<const Pod>> pods;
    const auto call = transport.send(std::move(request), [&](Result<kube::Response> response) {
      for (const Payload& item : must(std::move(response)).items) pods.push_back(must(item.as<Pod>()));
      done = true;
    });
    wait(done);
    if (static_cast<int>(pods.size()) != pods_) std::exit(1);
  }

  void watch_with(bool structs) {
    bool done = false;
    int events = 0;
    Request request = list();
    request.verb = Verb::kWatch;
    request.query = {{"watch", "1"}, {"timeoutSeconds", "600"}};
    if (structs) request.reduce = [](const Payload& object) { object.reduce_to<Pod>(); };
    const auto call = beast_->watch(std::move(request), {[&](const kube::WatchEvent&) { done = ++events == pods_; },
                                                         [&](const Status&) { done = true; }});
    wait(done);
    if (events != pods_) std::exit(1);
  }

  static void get_with(kube::Transport& transport, std::function<void()> done) {
    auto held = std::make_shared<kube::CallPtr>();
    *held = transport.send(get(), [held, done](const Result<kube::Response>& response) {
      if (!response) std::exit(1);
      done();
    });
  }

  void repeat(int count, int at_once, const std::function<void(std::function<void()>)>& one) {
    int begun = 0;
    int ended = 0;
    bool done = false;
    std::function<void()> next = [&] {
      if (begun == count) return;
      ++begun;
      one([&] {
        done = ++ended == count;
        next();
      });
    };
    for (int i = 0; i < at_once; ++i) next();
    wait(done);
  }

  static Sample measure(const std::function<void()>& work) {
    ::malloc_trim(0);
    reset_peak();
    const double before = memory_mb("VmRSS");
    const double cpu = cpu_seconds();
    const auto start = Watch::now();
    work();
    Sample sample{std::chrono::duration<double>(Watch::now() - start).count(), cpu_seconds() - cpu, 0};
    sample.peak = memory_mb("VmHWM") - before;
    return sample;
  }

  static void report(const std::string& title, const std::string& base, int units, const char* unit, int rounds,
                     const std::map<std::string, std::function<void()>>& cases) {
    std::map<std::string, std::vector<Sample>> samples;
    for (const auto& [name, work] : cases) work();  // connections, caches
    for (int round = 0; round < rounds; ++round) {
      for (const auto& [name, work] : cases) samples[name].push_back(measure(work));
    }
    const auto median = [](std::vector<Sample> of, double Sample::*what) {
      std::sort(of.begin(), of.end(), [&](const Sample& a, const Sample& b) { return a.*what < b.*what; });
      return of[of.size() / 2].*what;
    };
    const double base_wall = median(samples.at(base), &Sample::wall);
    const double base_cpu = median(samples.at(base), &Sample::cpu);
    std::printf("%s\n", title.c_str());
    for (const auto& [name, list] : samples) {
      const double wall = median(list, &Sample::wall);
      const double cpu = median(list, &Sample::cpu);
      std::printf(
          "  %-18s %9.0f %s/s   %8.1f us each   CPU %8.1f us each   peak %6.1f MB   wall %5.2fx, CPU %5.2fx of %s\n",
          name.c_str(), units / wall, unit, wall / units * 1e6, cpu / units * 1e6, median(list, &Sample::peak),
          wall / base_wall, cpu / base_cpu, base.c_str());
    }
    std::fflush(stdout);
  }

  void cache() {
    ::malloc_trim(0);
    const double before = memory_mb("VmRSS");
    reset_peak();
    kube::Informer<Pod> pods(loop_, *beast_, 1, {.ns = "bench"});
    pods.start();
    loop_.run_until([&] { return pods.synced(); }, kCap);
    const double peak = memory_mb("VmHWM") - before;
    ::malloc_trim(0);
    std::printf("a cache of %zu pods, watched\n  %.1f MB (%.2f kB each), %.1f MB at the most while listing\n",
                pods.store().size(), memory_mb("VmRSS") - before,
                (memory_mb("VmRSS") - before) * 1024 / static_cast<double>(pods.store().size()), peak);
  }

  int pods_;
  net::AsioLoop loop_;
  kube::ClusterConfig config_;
  std::unique_ptr<kube::HttpTransport> beast_;
  std::unique_ptr<kube::CpprestTransport> cpprest_;
  std::unique_ptr<net::HttpPool> pool_;
};

}  // namespace
}  // namespace pitcrew::bench

int main(int argc, char** argv) {
  const int pods = argc > 1 ? std::atoi(argv[1]) : 5000;
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 3;
  if (pods < 1 || rounds < 1) {
    std::fprintf(stderr, "usage: transport_bench [PODS [ROUNDS]]\n");
    return 2;
  }
  const pitcrew::bench::BenchServer server(pods);
  pitcrew::bench::Bench(server.url(), server.ca_pem(), pods).run(rounds);
}
