#include "agent/probe/table/table.hpp"

#include "agent/probe/efa/efa.hpp"
#include "agent/probe/table/nvml_tasks.hpp"

namespace pitcrew::agent {
namespace {

constexpr ProbeRow kTable[] = {
    {"efa", seconds(15), seconds(5),
     [](const ProbeSettings& settings) -> std::unique_ptr<Probe> {
       return std::make_unique<efa::EfaProbe>(settings.paths, settings.machine.efa_devices);
     }},
};

}  // namespace

std::span<const ProbeRow> probe_table() { return kTable; }

std::vector<ProbeTask> probe_tasks(const ProbeSettings& settings) {
  std::vector<ProbeTask> tasks = nvml_tasks(settings);
  for (const ProbeRow& row : kTable) {
    tasks.push_back({std::string(row.name), row.every, row.limit,
                     [probe = std::shared_ptr<Probe>(row.make(settings))](Instant now) { return probe->look(now); }});
  }
  return tasks;
}

}  // namespace pitcrew::agent
