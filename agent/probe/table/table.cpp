#include "agent/probe/table/table.hpp"

#include "agent/probe/clock/clock.hpp"
#include "agent/probe/disk/disk.hpp"
#include "agent/probe/efa/efa.hpp"
#include "agent/probe/lustre/lustre.hpp"
#include "agent/probe/node/node.hpp"
#include "agent/probe/table/nvml_tasks.hpp"
#include "agent/probe/versions/versions.hpp"

namespace pitcrew::agent {
namespace {

template <typename T, typename... Arguments>
std::unique_ptr<Probe> make(Arguments&&... arguments) {
  return std::make_unique<T>(std::forward<Arguments>(arguments)...);
}

using S = ProbeSettings;

constexpr ProbeRow kTable[] = {
    {"efa", seconds(15), seconds(5), [](const S& s) { return make<efa::EfaProbe>(s.paths, s.machine.efa_devices); }},
    {"lustre", seconds(30), seconds(5), [](const S& s) { return make<lustre::LustreProbe>(s.paths); }},
    {"disk", seconds(30), seconds(5), [](const S& s) { return make<disk::SpaceProbe>(s.paths); }},
    {"nvme", seconds(30), seconds(5), [](const S& s) { return make<disk::NvmeProbe>(s.paths, s.machine.nvme_disks); }},
    {"node", seconds(15), seconds(5), [](const S& s) { return make<node::PressureProbe>(s.paths); }},
    {"clock", seconds(15), seconds(5), [](const S&) { return make<clock::ClockProbe>(); }},
    {"versions", minutes(10), seconds(10), [](const S& s) { return make<versions::VersionsProbe>(s.paths); }},
};

}  // namespace

std::span<const ProbeRow> probe_table() { return kTable; }

std::vector<ProbeTask> probe_tasks(const ProbeSettings& settings) {
  std::vector<ProbeTask> tasks = nvml_tasks(settings);
  for (const ProbeRow& row : kTable) {
    tasks.push_back({std::string(row.name), row.every, row.limit,
                     [probe = std::shared_ptr<Probe>(row.make(settings))](Instant now) { return probe->look(now); }});
  }
  for (const exec::Program& program : settings.programs) {
    // The program's own time-out comes first; the runner's is for one that can't be killed.
    tasks.push_back({"exec." + program.name, program.every, program.timeout + seconds(5),
                     [probe = std::make_shared<exec::ExecProbe>(program)](Instant now) { return probe->look(now); }});
  }
  return tasks;
}

}  // namespace pitcrew::agent
