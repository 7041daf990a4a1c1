#include <benchmark/benchmark.h>

#include "lib/kube/cache/informer.hpp"
#include "lib/kube/client/client.hpp"
#include "lib/kube/types/lease.hpp"
#include "lib/kube/types/pod.hpp"
#include "lib/local/api/memory_transport.hpp"

// What the simulation spends its time on: one virtual hour is some ten thousand lease renewals, and a few thousand pod
// updates that a dozen watchers see.
namespace pitcrew::local {
namespace {

void lease_renewal(benchmark::State& state) {
  VirtualLoop loop;
  ApiServer server(loop);
  MemoryTransport transport(loop, server);
  kube::Client client(loop, transport, 1, {.rate = 1e9, .burst = 1e9});
  kube::Lease lease;
  lease.metadata = {.name = "n1", .ns = "kube-node-lease"};
  lease.holder = "n1";
  client.create<kube::Lease>(lease, [&](const Result<kube::Ptr<kube::Lease>>& created) { lease = **created; });
  loop.run_ready();
  for (auto _ : state) {
    lease.renewed = loop.now();
    client.update<kube::Lease>(lease, [&](const Result<kube::Ptr<kube::Lease>>& updated) { lease = **updated; });
    loop.run_for(seconds(10));
  }
}
BENCHMARK(lease_renewal);

Json large_pod() {
  Json container = {{"name", "train"}, {"image", "registry/train:1"}, {"command", {"python", "train.py"}}};
  for (int i = 0; i < 20; ++i)
    container["env"].push_back({{"name", "VARIABLE_" + std::to_string(i)}, {"value", "some value"}});
  container["resources"] = {{"requests", {{"cpu", "8"}, {"memory", "64Gi"}, {"nvidia.com/gpu", "8"}}}};
  return {{"metadata", {{"name", "p"}, {"namespace", "ns"}, {"labels", {{"pitcrew.dev/job", "a"}, {"app", "b"}}}}},
          {"spec", {{"containers", Json::array({container})}, {"nodeName", "n1"}}}};
}

// A status update of a pod that `range` informers hold in their caches.
void pod_status_with_watchers(benchmark::State& state) {
  VirtualLoop loop;
  ApiServer server(loop);
  MemoryTransport transport(loop, server);
  kube::Client client(loop, transport, 1, {.rate = 1e9, .burst = 1e9});
  client.create_raw(kube::Pod::type(), large_pod(), [](const Result<kube::Payload>&) {});
  loop.run_ready();
  std::vector<std::unique_ptr<kube::Informer<kube::Pod>>> informers;
  for (int i = 0; i < state.range(0); ++i) {
    informers.push_back(std::make_unique<kube::Informer<kube::Pod>>(loop, transport, 1));
    informers.back()->start();
  }
  loop.run_for(seconds(1));
  int64_t count = 0;
  for (auto _ : state) {
    kube::Patch patch{kube::PatchKind::kMerge, {{"status", {{"message", std::to_string(++count)}}}}, {}, "status"};
    client.patch_raw(kube::Pod::type(), {"ns", "p"}, std::move(patch), [](const Result<kube::Payload>&) {});
    loop.run_for(milliseconds(10));
  }
}
BENCHMARK(pod_status_with_watchers)->Arg(0)->Arg(1)->Arg(3)->Arg(12);

// An hour in which nothing happens but three informers, two candidates for a lease and twelve nodes' leases.
void quiet_hour(benchmark::State& state) {
  for (auto _ : state) {
    VirtualLoop loop;
    ApiServer server(loop);
    MemoryTransport transport(loop, server);
    kube::Client client(loop, transport, 1);
    std::vector<kube::Lease> leases(12);
    for (size_t i = 0; i < leases.size(); ++i) {
      leases[i].metadata = {.name = "n" + std::to_string(i), .ns = "kube-node-lease"};
      client.create<kube::Lease>(leases[i],
                                 [&, i](const Result<kube::Ptr<kube::Lease>>& created) { leases[i] = **created; });
    }
    std::vector<std::unique_ptr<kube::Informer<kube::Pod>>> informers;
    for (int i = 0; i < 15; ++i) {
      informers.push_back(std::make_unique<kube::Informer<kube::Pod>>(loop, transport, 1));
      informers.back()->start();
    }
    for (int tick = 0; tick < 360; ++tick) {
      for (kube::Lease& lease : leases) {
        lease.renewed = loop.now();
        client.update<kube::Lease>(lease, [&](const Result<kube::Ptr<kube::Lease>>& updated) { lease = **updated; });
      }
      loop.run_for(seconds(10));
    }
  }
}
BENCHMARK(quiet_hour)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace pitcrew::local

BENCHMARK_MAIN();
