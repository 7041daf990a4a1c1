#pragma once

#include "agent/probe/host.hpp"
#include "agent/probe/probe.hpp"

namespace pitcrew::agent::efa {

// EFA devices through sysfs: how many there are (`efa.count`), each one's traffic and error counters (`efa.port`) and
// the counters of its command queue (`efa.admin`), as the driver counts them. States are not read: the driver calls
// every port active whatever happens. A device that vanishes is one that is no longer counted.
class EfaProbe final : public Probe {
 public:
  // `expected` devices of this machine; 0: not known.
  EfaProbe(HostPaths paths, unsigned expected) : paths_(std::move(paths)), expected_(expected) {}
  Result<std::vector<Observation>> look(Instant now) override;

 private:
  HostPaths paths_;
  unsigned expected_;
};

// Whether a PCI function is an EFA device (vendor 0x1d0f, device 0xefa0 and its successors).
bool is_efa(const Folder& pci_function);

}  // namespace pitcrew::agent::efa
