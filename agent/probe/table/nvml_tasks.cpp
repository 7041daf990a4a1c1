#include "agent/probe/table/nvml_tasks.hpp"

#include <utility>

#include "agent/probe/nvml/connection.hpp"
#include "agent/probe/nvml/gpm.hpp"
#include "agent/probe/nvml/identity.hpp"
#include "agent/probe/nvml/probes.hpp"
#include "agent/probe/nvml/xid_events.hpp"

namespace pitcrew::agent {
namespace {

using Seen = Result<std::vector<Observation>>;
using LibraryPtr = std::shared_ptr<const nvml::Library>;

// Looks where there is a library, and tells the connection what went wrong with it.
template <typename F>
std::function<Seen(Instant)> with(std::shared_ptr<nvml::Connection> connection, F look) {
  return [connection, look = std::move(look)](Instant now) -> Seen {
    PITCREW_ASSIGN(const LibraryPtr library, connection->get(now));
    if (library == nullptr) return std::vector<Observation>();
    Seen seen = look(library, now);
    if (!seen) connection->failed(library, seen.error());
    return seen;
  };
}

Observation driver_start(Instant now) {
  Observation observation;
  observation.kind = kinds::kDriverStart;
  observation.text = "the NVIDIA driver has started anew";
  observation.time = now;
  return observation;
}

}  // namespace

std::vector<ProbeTask> nvml_tasks(const ProbeSettings& settings) {
  const auto connection = std::make_shared<nvml::Connection>(
      nvml::Connection::Settings{.path = settings.nvml, .needed = settings.machine.gpus > 0});
  const nvml::Expected expected{settings.machine.gpus, settings.machine.nvlinks};
  std::vector<ProbeTask> tasks;
  const auto opened = std::make_shared<uint64_t>(0);
  tasks.push_back({"gpu.count", seconds(10), seconds(5),
                   with(connection, [connection, expected, opened](const LibraryPtr& library, Instant now) -> Seen {
                     PITCREW_ASSIGN(std::vector<Observation> seen, nvml::look_at_gpus(*library, expected, now));
                     const uint64_t before = std::exchange(*opened, connection->opened());
                     if (before != 0 && before != *opened) seen.insert(seen.begin(), driver_start(now));
                     return seen;
                   })});
  tasks.push_back({"gpu.identity", minutes(1), seconds(5), with(connection, [](const LibraryPtr& library, Instant now) {
                     return nvml::look_at_identities(*library, now);
                   })});
  tasks.push_back(
      {"gpu.xid", seconds(1), seconds(5),
       with(connection, [events = std::make_shared<nvml::XidEvents>()](const LibraryPtr& library, Instant now) {
         return events->look(library, now);
       })});
  tasks.push_back(
      {"gpu.activity", seconds(15), seconds(5),
       with(connection, [activity = std::make_shared<nvml::Activity>()](const LibraryPtr& library, Instant now) {
         return activity->look(library, now);
       })});
  for (const nvml::GpuProbe& probe : nvml::gpu_probes()) {
    tasks.push_back({std::string(probe.kind), probe.every, probe.limit,
                     with(connection, [&probe, expected](const LibraryPtr& library, Instant now) {
                       return nvml::look(probe, *library, expected, now);
                     })});
  }
  return tasks;
}

}  // namespace pitcrew::agent
