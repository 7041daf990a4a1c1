#include "agent/probe/kernel_log/parse.hpp"

#include <algorithm>

#include "agent/probe/kernel_log/nvlink5.hpp"
#include "agent/probe/kernel_log/scan.hpp"

namespace pitcrew::agent::kernel_log {
namespace {

bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

Observation about(std::string_view kind, std::string_view line) {
  Observation observation;
  observation.kind = kind;
  observation.text = printable(line);
  return observation;
}

// "PCI:0000:b9:00", "0000:b9:00.0", "b9:00.0" → "0000:b9:00.0"; empty where it is none of these.
std::string pci_address(std::string_view text) {
  if (text.starts_with("PCI:")) text.remove_prefix(4);
  std::string address;
  size_t colons = 0;
  bool function = false;
  for (const char c : text) {
    const bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
    if (!hex && c != ':' && c != '.') return "";
    colons += c == ':';
    function = function || c == '.';
    address += c >= 'A' && c <= 'F' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  if (address.size() < 5 || address.size() > 16 || colons == 0 || colons > 2) return "";
  if (colons == 1) address.insert(0, "0000:");
  if (!function) address += ".0";
  return address;
}

// ", pid=1234, name=python3, …": what the driver adds to most XIDs. `pid='<unknown>'` is no pid.
void read_process(Scan& scan, Observation& out) {
  Scan at = scan;
  at.spaces();
  if (at.skip("pid=")) {
    at.skip("'");
    if (const auto pid = at.number()) out.values["pid"] = static_cast<double>(*pid);
    at.until(",");
    at.skip(",");
    scan = at;
  }
  at.spaces();
  if (at.skip("name=")) {
    const std::string_view name = at.until(",");
    if (!name.empty() && name.front() != '<') out.values["name"] = printable(name, 64);
    at.skip(",");
    scan = at;
  }
}

// "(GPC 0, TPC 3, SM 1)"
void read_graphics(Scan scan, Observation& out) {
  if (!scan.past("(GPC ")) return;
  for (const auto& [name, behind] : {std::pair("gpc", ", TPC "), std::pair("tpc", ", SM "), std::pair("sm", ")")}) {
    const auto value = scan.number();
    if (!value) return;
    out.values[name] = static_cast<double>(*value);
    if (!scan.skip(behind)) return;
  }
}

// "NVLink: fatal error detected on link 14(0x0, 0x0, 0x10000, 0x0, 0x0, 0x0, 0x0)"
void read_nvlink(Scan scan, Observation& out) {
  if (!scan.past(" link ")) return;
  if (const auto link = scan.number()) out.values["link"] = static_cast<double>(*link);
  scan.spaces();
  if (!scan.skip("(")) return;
  for (int i = 0; i < 7; ++i) {
    const auto value = scan.hex();
    if (!value) return;
    out.values["reg" + std::to_string(i)] = static_cast<double>(*value);
    scan.skip(",");
    scan.spaces();
  }
}

// "NETIR_LINK_EVT  Fatal   XC0 i0 Link 01 (0x021425c6 0x00000000 …)", and older "… XC 1 i 2 Link 01 [0x0000000a]"
void read_nvlink5(Scan scan, uint32_t code, Observation& out) {
  scan.spaces();
  const std::string_view unit = scan.until(" \t,(");
  if (unit.empty()) return;
  out.values["unit"] = printable(unit, 32);
  scan.spaces();
  const std::string_view rest = scan.rest();
  if (rest.starts_with("Nonfatal") || rest.starts_with("Non-fatal") || rest.starts_with("Non-Fatal")) {
    out.values["severity"] = std::string("Non-fatal");
  } else if (rest.starts_with("Fatal") || rest.starts_with("Link Fatal") || rest.starts_with("FATAL")) {
    out.values["severity"] = std::string("Fatal");
  }
  Scan at = scan;
  if (at.past(" i") && (at.spaces(), true)) {
    if (const auto injected = at.number()) out.values["injected"] = static_cast<double>(*injected);
  }
  if (scan.past("Link ")) {
    if (const auto link = scan.number()) out.values["link"] = static_cast<double>(*link);
  }
  scan.until("([");
  if (!scan.skip("(")) scan.skip("[");
  const auto intrinfo = scan.hex();
  if (!intrinfo) return;
  scan.skip(",");
  scan.spaces();
  const auto status = scan.hex();
  out.values["intrinfo"] = static_cast<double>(*intrinfo);
  if (status) out.values["status"] = static_cast<double>(*status);
  // Drivers before R575 write one word of another layout: not in the table.
  const Nvlink5Decision decision =
      status ? decode_nvlink5(code, unit, *intrinfo, *status) : Nvlink5Decision{"unknown", ""};
  out.values["resolution"] = std::string(decision.resolution);
  if (!decision.investigate.empty()) out.values["investigate"] = std::string(decision.investigate);
}

// What XID and SXID lines begin with: " (PCI:0000:b9:00): 79,". Leaves the scan behind it.
std::optional<Observation> read_code(std::string_view kind, std::string_view line, Scan& scan) {
  scan.spaces();
  if (!scan.skip("(")) return std::nullopt;
  const std::string device = pci_address(scan.until(")"));
  if (device.empty() || !scan.skip("):")) return std::nullopt;
  scan.spaces();
  const auto code = scan.number();
  if (!code || *code > 1'000'000) return std::nullopt;
  Observation out = about(kind, line);
  out.device = device;
  out.code = *code;
  scan.skip(",");
  return out;
}

// "NVRM: Xid (PCI:0000:b9:00): 79, pid=1234, name=python3, GPU has fallen off the bus."
std::optional<Observation> parse_xid(std::string_view line, Scan scan) {
  auto out = read_code(kinds::kXid, line, scan);
  if (!out) return out;
  const auto code = *out->code;
  read_process(scan, *out);
  switch (code) {
    case 13:
      read_graphics(scan, *out);
      break;
    case 74:
      read_nvlink(scan, *out);
      break;
    case 154:
      // "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)"
      if (scan.past(" to ")) {
        if (const auto action = scan.hex()) out->values["action"] = static_cast<double>(*action);
      }
      break;
    default:
      if (code >= 144 && code <= 150) read_nvlink5(scan, code, *out);
  }
  if (code >= 144 && code <= 150 && !out->values.contains("resolution")) {
    out->values["resolution"] = std::string("unknown");
  }
  return out;
}

// "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 12028, Non-fatal, Link 32 egress non-posted PRIV error (First)"
std::optional<Observation> parse_sxid(std::string_view line, Scan scan) {
  auto out = read_code(kinds::kSxid, line, scan);
  if (!out) return out;
  scan.spaces();
  if (scan.skip("Non-fatal")) {
    out->values["severity"] = std::string("Non-fatal");
  } else if (scan.skip("Fatal")) {
    out->values["severity"] = std::string("Fatal");
  }
  if (scan.past("Link ")) {
    if (const auto link = scan.number()) out->values["link"] = static_cast<double>(*link);
  }
  return out;
}

std::optional<Observation> parse_nvrm(std::string_view line) {
  Scan scan(line);
  if (scan.past("NVRM: Xid")) return parse_xid(line, scan);
  if (!contains(line, "fallen off the bus")) return std::nullopt;
  Observation out = about("kernel.gpu_lost", line);
  // "NVRM: GPU 0000:b9:00.0: GPU has fallen off the bus." and "NVRM: The NVIDIA GPU 0000:b9:00.0 (PCI ID: …)"
  scan = Scan(line);
  if (scan.past("GPU ")) {
    std::string_view address = scan.until(" (");
    while (!address.empty() && address.back() == ':') address.remove_suffix(1);
    out.device = pci_address(address);
  }
  return out;
}

// "efa 0000:50:00.0: …", "infiniband rdmap80s0: …", "infiniband efa_0: …"
std::optional<Observation> parse_efa(std::string_view line) {
  const bool infiniband = line.starts_with("infiniband ");
  Scan scan(line);
  if (infiniband) {
    scan.skip("infiniband ");
    if (!scan.rest().starts_with("rdmap") && !scan.rest().starts_with("efa")) return std::nullopt;
  } else if (!scan.skip("efa ")) {
    return std::nullopt;
  }
  const std::string_view device = scan.until(" ");
  static constexpr struct {
    std::string_view part, what;
    bool fatal;
  } kPatterns[] = {
      // What the driver writes (amzn-drivers, efa_com.c and efa_main.c).
      {"didn't get a completion", "admin-timeout", true},
      {"Wait for completion (polling) timeout", "admin-timeout", true},
      {"The device sent a completion but the driver didn't receive", "admin-interrupt-lost", true},
      {"The device didn't send any completion", "admin-timeout", true},
      {"Admin queue is closed", "admin-closed", true},
      {"admin queue is closed", "admin-closed", true},
      {"Device isn't ready", "not-ready", true},
      {"Reset indication didn't turn on", "reset-failed", true},
      {"Reset indication didn't turn off", "reset-failed", true},
      {"Device reset failed", "reset-failed", true},
      {"Failed to process command", "admin-failed", false},
      {"Failed to submit command", "admin-failed", false},
      {"Failed to ", "failed", false},
  };
  for (const auto& pattern : kPatterns) {
    if (!contains(scan.rest(), pattern.part)) continue;
    Observation out = about("kernel.efa", line);
    const std::string address = pci_address(device.substr(0, device.find_last_not_of(':') + 1));
    out.device = address.empty() ? printable(device.substr(0, device.find(':')), 32) : address;
    out.values["what"] = std::string(pattern.what);
    out.values["fatal"] = pattern.fatal ? 1.0 : 0.0;
    return out;
  }
  return std::nullopt;
}

// "ena 0000:00:05.0 eth0: Keep alive watchdog timeout."
std::optional<Observation> parse_ena(std::string_view line) {
  static constexpr std::pair<std::string_view, std::string_view> kPatterns[] = {
      {"Keep alive watchdog timeout", "keep-alive"},
      {"Trigger reset", "reset"},
      {"initiating reset", "reset"},
      {"Device reset Failed", "reset-failed"},
      {"Can not reset device", "reset-failed"},
      {"didn't get a completion", "admin-timeout"},
      {"Wait for completion (polling) timeout", "admin-timeout"},
      {"TX hasn't completed", "transmit"},
      {"completion timeout", "transmit"}};
  for (const auto& [part, what] : kPatterns) {
    if (!contains(line, part)) continue;
    Observation out = about("kernel.ena", line);
    Scan scan(line);
    scan.skip("ena ");
    out.device = pci_address(scan.until(" "));
    out.values["what"] = std::string(what);
    return out;
  }
  return std::nullopt;
}

// "Out of memory: Killed process 123 (python3) …", "Memory cgroup out of memory: Killed process 123 (python3), UID …"
std::optional<Observation> parse_oom(std::string_view line) {
  Scan scan(line);
  const bool cgroup = scan.skip("Memory cgroup out of memory: ");
  if (!cgroup && !scan.skip("Out of memory: ")) return std::nullopt;
  if (!scan.skip("Killed process ") && !scan.skip("Kill process ")) return std::nullopt;
  Observation out = about("kernel.oom", line);
  if (const auto pid = scan.number()) out.values["pid"] = static_cast<double>(*pid);
  scan.spaces();
  if (scan.skip("(")) out.values["name"] = printable(scan.until(")"), 64);
  out.values["cgroup"] = cgroup ? 1.0 : 0.0;
  return out;
}

// "INFO: task python3:12345 blocked for more than 122 seconds."
std::optional<Observation> parse_hung_task(std::string_view line) {
  Scan scan(line);
  if (!scan.skip("INFO: task ") || !contains(line, " blocked for more than ")) return std::nullopt;
  Observation out = about("kernel.hung_task", line);
  const std::string_view task = scan.rest().substr(0, scan.rest().find(" blocked"));
  const size_t colon = task.rfind(':');
  out.values["name"] = printable(task.substr(0, colon), 64);
  if (colon != std::string_view::npos) {
    if (const auto pid = Scan(task.substr(colon + 1)).number()) out.values["pid"] = static_cast<double>(*pid);
  }
  if (scan.past("more than ")) {
    if (const auto seconds = scan.number()) out.values["seconds"] = static_cast<double>(*seconds);
  }
  return out;
}

std::optional<Observation> filesystem(std::string_view line, std::string_view fs, std::string_view device,
                                      std::string_view what) {
  Observation out = about("kernel.filesystem", line);
  out.device = printable(device, 32);
  out.values["fs"] = std::string(fs);
  out.values["what"] = std::string(what);
  return out;
}

// "EXT4-fs error (device nvme0n1p1): …", "EXT4-fs (nvme0n1p1): Remounting filesystem read-only"
std::optional<Observation> parse_ext4(std::string_view line) {
  Scan scan(line);
  scan.skip("EXT4-fs ");
  if (scan.skip("error (device ")) return filesystem(line, "ext4", scan.until("):"), "error");
  if (!scan.skip("(")) return std::nullopt;
  const std::string_view device = scan.until(")");
  if (contains(scan.rest(), "emounting filesystem read-only")) return filesystem(line, "ext4", device, "read-only");
  if (contains(scan.rest(), "shut down") || contains(scan.rest(), "delayed block allocation failed")) {
    return filesystem(line, "ext4", device, "error");
  }
  return std::nullopt;
}

// "XFS (nvme1n1): Corruption detected. Unmount and run xfs_repair", "XFS (dm-0): log I/O error -5",
// "XFS (dm-0): Filesystem has been shut down due to log error (0x2)."
std::optional<Observation> parse_xfs(std::string_view line) {
  Scan scan(line);
  if (!scan.skip("XFS (")) return std::nullopt;
  const std::string_view device = scan.until(")");
  for (const std::string_view part : {"shut down", "Shutting down filesystem", "Please unmount the filesystem"}) {
    if (contains(scan.rest(), part)) return filesystem(line, "xfs", device, "shutdown");
  }
  for (const std::string_view part :
       {"Corruption", "orruption detected", "I/O error", "Internal error", "Metadata CRC"}) {
    if (contains(scan.rest(), part)) return filesystem(line, "xfs", device, "error");
  }
  return std::nullopt;
}

// "nvme nvme1: I/O 23 QID 4 timeout, aborting", "nvme nvme1: Device not ready; aborting reset",
// "nvme nvme1: Removing after probe failure status: -19", "blk_update_request: I/O error, dev nvme1n1, sector …"
std::optional<Observation> parse_disk(std::string_view line) {
  Observation out = about("kernel.nvme", line);
  Scan scan(line);
  if (scan.skip("nvme ")) {
    out.device = printable(scan.until(": "), 32);
    const std::string_view rest = scan.rest();
    if (contains(rest, "Removing after probe failure") || contains(rest, "Disabling device after reset failure") ||
        contains(rest, "frozen state error detected")) {
      out.values["what"] = std::string("dead");
    } else if (contains(rest, "timeout") || contains(rest, "not ready") || contains(rest, "controller is down")) {
      out.values["what"] = std::string("timeout");
    } else {
      return std::nullopt;
    }
    return out;
  }
  const bool error = contains(line, "I/O error, dev ") || contains(line, "critical medium error, dev ");
  if (!error || !scan.past(", dev ")) return std::nullopt;
  out.device = printable(scan.until(", "), 32);
  if (!out.device.starts_with("nvme")) return std::nullopt;
  out.values["what"] = std::string("error");
  return out;
}

// "LustreError: 167-0: fs-MDT0000-mdc-…: This client was evicted by fs-MDT0000; in progress operations …",
// "Lustre: fs-OST0001-osc-…: Connection to fs-OST0001 (at 10.0.0.7@tcp) was lost; …"
std::optional<Observation> parse_lustre(std::string_view line) {
  static constexpr std::pair<std::string_view, std::string_view> kPatterns[] = {{"This client was evicted", "evicted"},
                                                                                {"was lost", "lost"},
                                                                                {"has timed out", "slow"},
                                                                                {"slow", "slow"},
                                                                                {"timed out", "slow"}};
  std::string_view what;
  for (const auto& [part, name] : kPatterns) {
    if (what.empty() && contains(line, part)) what = name;
  }
  if (what.empty() && line.starts_with("LustreError:")) what = "error";
  if (what.empty()) return std::nullopt;
  Observation out = about("kernel.lustre", line);
  for (const std::string_view target : {"-OST", "-MDT", "-MGS"}) {
    const size_t at = line.find(target);
    if (at == std::string_view::npos) continue;
    size_t first = at, last = at + 1;
    const auto part_of_name = [](char c) {
      return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    };
    while (first > 0 && part_of_name(line[first - 1])) --first;
    while (last < line.size() && part_of_name(line[last])) ++last;
    out.device = printable(line.substr(first, last - first), 32);
    break;
  }
  out.values["what"] = std::string(what);
  return out;
}

// "mce: [Hardware Error]: CPU 12: Machine Check Exception: 5 Bank 4: …", "EDAC MC0: 1 CE …", "EDAC MC0: 1 UE …"
std::optional<Observation> parse_machine_check(std::string_view line) {
  const bool mce = contains(line, "[Hardware Error]:");
  const bool edac = line.starts_with("EDAC ");
  bool fatal = false, said = false;
  if (mce) {
    fatal = contains(line, "Machine Check Exception") || contains(line, "Uncorrected") ||
            contains(line, "uncorrected") || contains(line, "event severity: fatal");
    said = fatal || contains(line, "Corrected error") || contains(line, "corrected") ||
           contains(line, "Machine check events logged");
    // "Uncorrected, software restartable" and "deferred" are recovered by the kernel.
    if (contains(line, "software containable") || contains(line, "Deferred error")) fatal = false;
  } else if (edac) {
    fatal = contains(line, " UE ");
    said = fatal || contains(line, " CE ");
  }
  if (!said) return std::nullopt;
  Observation out = about("kernel.mce", line);
  out.values["fatal"] = fatal ? 1.0 : 0.0;
  return out;
}

std::optional<Observation> parse_kernel(std::string_view line) {
  if (contains(line, "soft lockup - CPU#") || contains(line, "hard LOCKUP on cpu")) return about("kernel.lockup", line);
  if (line.starts_with("BUG: ") || line.starts_with("Oops: ") || line.starts_with("kernel BUG at ") ||
      line.starts_with("Kernel panic - not syncing")) {
    return about("kernel.bug", line);
  }
  return std::nullopt;
}

}  // namespace

std::optional<Observation> parse(std::string_view line) {
  if (line.size() < 8) return std::nullopt;
  if (line.size() > 4096) line = line.substr(0, 4096);
  // Most lines are none of ours; the first letters say which reader could want one.
  switch (line.front()) {
    case 'N':
      if (line.starts_with("NVRM: ")) return parse_nvrm(line);
      break;
    case 'n':
      if (line.starts_with("nvidia-nvswitch")) {
        Scan scan(line);
        return scan.past("SXid") ? parse_sxid(line, scan) : std::nullopt;
      }
      if (line.starts_with("nvme ")) return parse_disk(line);
      break;
    case 'e':
      if (line.starts_with("efa ")) return parse_efa(line);
      if (line.starts_with("ena ")) return parse_ena(line);
      break;
    case 'i':
      if (line.starts_with("infiniband ")) return parse_efa(line);
      break;
    case 'O':
    case 'M':
      if (auto oom = parse_oom(line)) return oom;
      break;
    case 'I':
      if (line.starts_with("INFO: task ")) return parse_hung_task(line);
      if (line.starts_with("I/O error, dev ")) return parse_disk(line);
      break;
    case 'E':
      if (line.starts_with("EXT4-fs ")) return parse_ext4(line);
      break;
    case 'X':
      if (line.starts_with("XFS (")) return parse_xfs(line);
      break;
    case 'L':
      if (line.starts_with("Lustre: ") || line.starts_with("LustreError: ")) return parse_lustre(line);
      break;
    case 'b':
    case 'c':
      if (line.starts_with("blk_update_request: ") || line.starts_with("critical medium error"))
        return parse_disk(line);
      break;
    default:
      break;
  }
  if (line.starts_with("EDAC ") || contains(line.substr(0, 64), "[Hardware Error]:")) return parse_machine_check(line);
  return parse_kernel(line);
}

}  // namespace pitcrew::agent::kernel_log
