#pragma once

#include "agent/probe/host.hpp"
#include "agent/probe/probe.hpp"

namespace pitcrew::agent::efa {

// EFA devices through sysfs: how many there are (`efa.count`), each one's traffic and error counters (`efa.port`) and
// the counters of its command queue (`efa.admin`), as the driver counts them. States are not read: the driver calls
// every port active whatever happens.
//
// `expected` are as many as this machine has shown since the probe began, on the PCI bus or with a driver: a device
// that vanishes is missing. `type` are as many as its instance type can have: a launch template may well ask for fewer,
// or for none, and nobody can tell that from a device that was never there by looking at one machine.
class EfaProbe final : public Probe {
 public:
  // `type`: devices of this machine's type; 0: not known.
  EfaProbe(HostPaths paths, unsigned type) : paths_(std::move(paths)), type_(type) {}
  Result<std::vector<Observation>> look(Instant now) override;

 private:
  HostPaths paths_;
  unsigned type_;
  bool first_ = true;
  size_t most_ = 0;  // seen so far
};

// Whether a PCI function is an EFA device (vendor 0x1d0f, device 0xefa0 and its successors).
bool is_efa(const Folder& pci_function);

}  // namespace pitcrew::agent::efa
