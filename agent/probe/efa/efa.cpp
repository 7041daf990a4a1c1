#include "agent/probe/efa/efa.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "agent/probe/observation_tools.hpp"

namespace pitcrew::agent::efa {
namespace {

// A device has about 30; more than this is no EFA driver.
constexpr size_t kMaxCounters = 96;
constexpr size_t kMaxDevices = 256;

// What the driver counts of its command queue. Old drivers show it among the port's counters.
constexpr std::array<std::string_view, 13> kAdminCounters = {
    "submitted_cmds", "completed_cmds", "cmds_err",      "no_completion_cmds", "keep_alive_rcvd",
    "alloc_pd_err",   "create_qp_err",  "create_cq_err", "reg_mr_err",         "alloc_ucontext_err",
    "create_ah_err",  "mmap_err",       "alloc_mr_err"};

bool is_name(std::string_view name) {
  return !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
  });
}

void read_counters(const Folder& folder, Observation& port, Observation& admin) {
  size_t taken = 0;
  for (const std::string& name : folder.entries()) {
    // `lifespan` is how long the kernel keeps the counters, and counts nothing.
    if (!is_name(name) || name == "lifespan") continue;
    const auto value = folder.number(name);
    if (!value) continue;
    const bool of_queue = std::find(kAdminCounters.begin(), kAdminCounters.end(), name) != kAdminCounters.end();
    (of_queue ? admin : port).values[name] = *value;
    if (++taken == kMaxCounters) return;
  }
}

void look_at_device(const Folder& device, const std::string& name, Instant now, std::vector<Observation>& out) {
  Observation port = make_reading("efa.port", name, now);
  Observation admin = make_reading("efa.admin", name, now);
  for (const char* counters : {"ports/1/counters", "ports/1/hw_counters", "hw_counters"}) {
    if (const auto folder = device.folder(counters)) read_counters(*folder, port, admin);
  }
  const auto submitted = admin.number("submitted_cmds"), completed = admin.number("completed_cmds");
  if (submitted && completed) admin.values["outstanding"] = std::max(0.0, *submitted - *completed);
  if (!port.values.empty()) out.push_back(std::move(port));
  if (!admin.values.empty()) out.push_back(std::move(admin));
}

// EFA functions on the PCI bus, with or without a driver.
size_t functions_on_pci(const HostPaths& paths) {
  size_t found = 0;
  const auto bus = Folder::open(paths.sys + "/bus/pci/devices");
  if (!bus) return found;
  for (const std::string& address : bus->entries()) {
    const auto function = bus->folder(address);
    found += function.ok() && is_efa(*function);
  }
  return found;
}

}  // namespace

bool is_efa(const Folder& pci_function) {
  if (pci_function.number("vendor") != 0x1d0f) return false;
  const auto device = pci_function.number("device");
  return device && *device >= 0xefa0 && *device <= 0xefaf;
}

Result<std::vector<Observation>> EfaProbe::look(Instant now) {
  std::vector<Observation> out;
  size_t count = 0;
  const auto devices = Folder::open(paths_.sys + "/class/infiniband");
  if (!devices && devices.error().code != Code::kNotFound) return devices.error();
  if (devices) {
    for (const std::string& name : devices->entries()) {
      const auto device = devices->folder(name);
      if (!device) continue;  // it has just gone
      const auto function = device->folder("device");
      if (!function || !is_efa(*function)) continue;
      if (++count > kMaxDevices) break;
      look_at_device(*device, printable(name, 64), now, out);
    }
  }
  most_ = std::max(most_, count);
  // The bus is walked only where it can say something new.
  const bool ask_bus = std::exchange(first_, false) || count < most_;
  const size_t on_pci = ask_bus ? functions_on_pci(paths_) : count;
  most_ = std::max(most_, on_pci);
  if (most_ == 0 && type_ == 0) return out;
  Observation counted = make_reading("efa.count", "", now);
  counted.values["count"] = static_cast<double>(count);
  counted.values["expected"] = static_cast<double>(most_);
  if (type_ > 0) counted.values["type"] = static_cast<double>(type_);
  if (count < most_) {
    counted.values["on_pci"] = static_cast<double>(on_pci);
    counted.text = std::to_string(count) + " of " + std::to_string(most_) + " EFA devices, " + std::to_string(on_pci) +
                   " on the PCI bus";
  }
  out.push_back(std::move(counted));
  return out;
}

}  // namespace pitcrew::agent::efa
