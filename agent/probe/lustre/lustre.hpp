#pragma once

#include <map>

#include "agent/probe/host.hpp"
#include "agent/probe/probe.hpp"

namespace pitcrew::agent::lustre {

// The Lustre client (FSx for Lustre): `lustre.client` for each mounted file system with what was read and written, how
// often and how long calls took; `lustre.target` for each server part with the state of its connection, evictions and
// RPCs that timed out. Where no Lustre is mounted there is nothing to see. Newer clients show their counters in
// debugfs, which only root reads: a mounted Lustre whose counters can't be read is a probe that can't look.
class LustreProbe final : public Probe {
 public:
  explicit LustreProbe(HostPaths paths) : paths_(std::move(paths)) {}
  Result<std::vector<Observation>> look(Instant now) override;
  // Connections whose evictions are counted.
  size_t counted() const { return evictions_.size(); }

 private:
  // What has been counted of a target since the start of the agent.
  struct Evictions {
    double count = 0;
    double newest = 0;  // time of the last one
    Instant looked;
  };

  void look_at_clients(const Folder& llite, Instant now, std::vector<Observation>& out);
  void look_at_targets(const Folder& targets, Instant now, std::vector<Observation>& out);

  HostPaths paths_;
  std::map<std::string, Evictions> evictions_;  // by the connection's own name
};

}  // namespace pitcrew::agent::lustre
