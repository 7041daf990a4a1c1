#include "agent/probe/nvml/probes.hpp"

namespace pitcrew::agent::nvml {
namespace {

using F = Library::Functions;

// Values of one GPU, read one by one: what this GPU does not have is left out, the first other error is kept.
class Values {
 public:
  Values(const Library& library, const Gpu& gpu, Observation& out) : library_(library), gpu_(gpu), out_(out) {}

  template <typename... Parameters, typename... Arguments>
  bool call(std::string_view name, int (*F::*function)(Parameters...), Arguments... arguments) {
    const int code = library_.call(function, gpu_.device, arguments...);
    if (code == abi::kSuccess) return true;
    const bool absent = code == abi::kNotSupported || code == abi::kFunctionNotFound || code == abi::kNoData;
    if (!absent && !error_) error_ = code, function_ = name;
    return false;
  }
  // One number by a function of (device, pointer).
  bool number(std::string_view name, int (*F::*function)(abi::Device, unsigned*), double scale = 1) {
    unsigned value = 0;
    if (!call(name, function, &value)) return false;
    set(name, value * scale);
    return true;
  }
  void set(std::string_view name, double value) { out_.values[std::string(name)] = value; }

  Status done() const {
    if (error_) return error_of(function_, *error_);
    if (out_.values.empty()) return Error(Code::kUnsupported, "not supported by this GPU");
    return {};
  }

 private:
  const Library& library_;
  const Gpu& gpu_;
  Observation& out_;
  std::optional<int> error_;
  std::string_view function_;
};

Status read_ecc(const Library& library, const Gpu& gpu, const Expected&, Observation& out) {
  Values values(library, gpu, out);
  // Corrected 0, uncorrected 1; volatile (since the driver started) 0, aggregate 1.
  static constexpr struct {
    std::string_view name;
    int type, counter;
  } kCounters[] = {{"corrected", 0, 0}, {"uncorrected", 1, 0}, {"corrected_total", 0, 1}, {"uncorrected_total", 1, 1}};
  for (const auto& counter : kCounters) {
    unsigned long long count = 0;
    if (values.call(counter.name, &F::ecc_errors, counter.type, counter.counter, &count)) {
      values.set(counter.name, static_cast<double>(count));
    }
  }
  abi::SramStatus sram{};
  sram.version = abi::version_of<abi::SramStatus>(1);
  // Drivers that know another version of the structure say that the argument is wrong: then it is not known.
  const int code = library.call(&F::sram_status, gpu.device, &sram);
  if (code == abi::kSuccess) values.set("sram_threshold", sram.threshold_exceeded != 0 ? 1 : 0);
  return values.done();
}

Status read_rows(const Library& library, const Gpu& gpu, const Expected&, Observation& out) {
  Values values(library, gpu, out);
  unsigned corrected = 0, uncorrected = 0, pending = 0, failed = 0;
  if (values.call("rows", &F::remapped_rows, &corrected, &uncorrected, &pending, &failed)) {
    values.set("corrected", corrected);
    values.set("uncorrected", uncorrected);
    values.set("pending", pending != 0 ? 1 : 0);
    values.set("failed", failed != 0 ? 1 : 0);
  }
  return values.done();
}

Status read_pages(const Library& library, const Gpu& gpu, const Expected&, Observation& out) {
  Values values(library, gpu, out);
  unsigned counts[2] = {0, 0};
  for (int cause = 0; cause < 2; ++cause) {
    // Asked for none of the addresses, NVML gives their number and says that there was no room.
    const int code =
        library.call(&F::retired_pages, gpu.device, cause, &counts[cause], static_cast<unsigned long long*>(nullptr));
    if (code == abi::kNotSupported || code == abi::kFunctionNotFound) return values.done();
    if (code != abi::kSuccess && code != abi::kInsufficientSize) return error_of("nvmlDeviceGetRetiredPages", code);
  }
  values.set("retired_sbe", counts[0]);
  values.set("retired_dbe", counts[1]);
  values.set("retired", counts[0] + counts[1]);
  int pending = 0;
  if (values.call("pending", &F::retired_pages_pending, &pending)) values.set("pending", pending);
  return values.done();
}

Status read_nvlink(const Library& library, const Gpu& gpu, const Expected& expected, Observation& out) {
  constexpr unsigned kMaxLinks = 18;
  Values values(library, gpu, out);
  unsigned links = 0, active = 0;
  unsigned long long replays = 0, recoveries = 0, crc = 0;
  bool counted = false;
  for (unsigned link = 0; link < kMaxLinks; ++link) {
    int state = 0;
    const int code = library.call(&F::nvlink_state, gpu.device, link, &state);
    if (code == abi::kNotSupported || code == abi::kInvalidArgument || code == abi::kFunctionNotFound) continue;
    if (code != abi::kSuccess) return error_of("nvmlDeviceGetNvLinkState", code);
    ++links;
    active += state != 0;
    unsigned long long count = 0;
    // Replay 0, recovery 1, CRC of flits 2 (up to NVLink 4).
    if (library.call(&F::nvlink_errors, gpu.device, link, 0, &count) == abi::kSuccess) replays += count, counted = true;
    if (library.call(&F::nvlink_errors, gpu.device, link, 1, &count) == abi::kSuccess) recoveries += count;
    if (library.call(&F::nvlink_errors, gpu.device, link, 2, &count) == abi::kSuccess) crc += count;
  }
  if (links == 0 && expected.nvlinks == 0) return values.done();
  values.set("links", links);
  values.set("active", active);
  if (expected.nvlinks > 0) values.set("expected", expected.nvlinks);
  if (counted) {
    values.set("replays", static_cast<double>(replays));
    values.set("recoveries", static_cast<double>(recoveries));
    values.set("crc", static_cast<double>(crc));
  }
  return values.done();
}

Status read_pcie(const Library& library, const Gpu& gpu, const Expected&, Observation& out) {
  Values values(library, gpu, out);
  values.number("generation", &F::pcie_generation);
  values.number("width", &F::pcie_width);
  values.number("max_generation", &F::pcie_max_generation);
  values.number("max_width", &F::pcie_max_width);
  values.number("replays", &F::pcie_replays);
  // DCGM's limit of replays a minute: lanes times this, by generation 1 to 6.
  static constexpr double kReplaysPerLane[] = {0.15, 0.3, 0.48, 0.96, 1.92, 3.84};
  const auto generation = out.number("max_generation"), width = out.number("width");
  if (generation && width && *generation >= 1 && *generation <= 6) {
    values.set("replay_limit", *width * kReplaysPerLane[static_cast<int>(*generation) - 1]);
  }
  return values.done();
}

Status read_temperature(const Library& library, const Gpu& gpu, const Expected&, Observation& out) {
  Values values(library, gpu, out);
  unsigned degrees = 0;
  if (values.call("gpu", &F::temperature, 0, &degrees)) values.set("gpu", degrees);
  static constexpr std::pair<std::string_view, int> kThresholds[] = {
      {"shutdown", 0}, {"slowdown", 1}, {"memory_max", 2}};
  for (const auto& [name, type] : kThresholds) {
    if (values.call(name, &F::temperature_threshold, type, &degrees)) values.set(name, degrees);
  }
  const auto now = out.number("gpu"), slowdown = out.number("slowdown");
  if (now && slowdown) values.set("margin", *slowdown - *now);
  return values.done();
}

Status read_throttle(const Library& library, const Gpu& gpu, const Expected&, Observation& out) {
  Values values(library, gpu, out);
  unsigned long long reasons = 0;
  if (values.call("reasons", &F::throttle_reasons, &reasons)) {
    // Hardware slowdown 0x8, its thermal part 0x40, its power brake 0x80; software's thermal slowdown 0x20, power cap
    // 0x4.
    values.set("reasons", static_cast<double>(reasons));
    values.set("hardware", (reasons & 0xc8) != 0 ? 1 : 0);
    values.set("thermal", (reasons & 0x60) != 0 ? 1 : 0);
    values.set("power_brake", (reasons & 0x80) != 0 ? 1 : 0);
    values.set("power_cap", (reasons & 0x4) != 0 ? 1 : 0);
  }
  return values.done();
}

Status read_power(const Library& library, const Gpu& gpu, const Expected&, Observation& out) {
  Values values(library, gpu, out);
  values.number("limit", &F::power_limit, 1e-3);
  unsigned milliwatts = 0;
  const int code = library.call(&F::power, gpu.device, &milliwatts);
  if (code == abi::kSuccess) values.set("watts", milliwatts * 1e-3);
  // A GPU that has a limit and cannot tell its power is what DCGM warns about; a lost GPU is another matter.
  if (code == abi::kGpuIsLost) return error_of("nvmlDeviceGetPowerUsage", code);
  if (out.values.contains("limit") || code == abi::kSuccess) values.set("readable", code == abi::kSuccess ? 1 : 0);
  return values.done();
}

Status read_clocks(const Library& library, const Gpu& gpu, const Expected&, Observation& out) {
  Values values(library, gpu, out);
  unsigned megahertz = 0;
  for (const auto& [name, max, type] : {std::tuple("sm", "sm_max", 1), std::tuple("memory", "memory_max", 2)}) {
    if (values.call(name, &F::clock, type, &megahertz)) values.set(name, megahertz);
    if (values.call(max, &F::max_clock, type, &megahertz)) values.set(max, megahertz);
  }
  return values.done();
}

Status read_memory(const Library& library, const Gpu& gpu, const Expected&, Observation& out) {
  Values values(library, gpu, out);
  abi::Memory memory{};
  if (values.call("memory", &F::memory, &memory)) {
    values.set("total", static_cast<double>(memory.total));
    values.set("used", static_cast<double>(memory.used));
  }
  return values.done();
}

Status read_use(const Library& library, const Gpu& gpu, const Expected&, Observation& out) {
  Values values(library, gpu, out);
  abi::Utilization use{};
  if (values.call("utilization", &F::utilization, &use)) {
    values.set("gpu", use.gpu);
    values.set("memory", use.memory);
  }
  return values.done();
}

Status read_processes(const Library& library, const Gpu& gpu, const Expected&, Observation& out) {
  constexpr unsigned kMaxProcesses = 64;
  Values values(library, gpu, out);
  abi::ProcessInfo processes[kMaxProcesses];
  unsigned count = kMaxProcesses;
  const int code = library.call(&F::processes, gpu.device, &count, processes);
  if (code == abi::kNotSupported || code == abi::kFunctionNotFound) return values.done();
  if (code != abi::kSuccess && code != abi::kInsufficientSize) {
    return error_of("nvmlDeviceGetComputeRunningProcesses_v3", code);
  }
  values.set("count", count);
  std::string pids;
  for (unsigned i = 0; code == abi::kSuccess && i < count; ++i)
    pids += (i == 0 ? "" : ",") + std::to_string(processes[i].pid);
  if (!pids.empty()) out.values["pids"] = pids;
  return values.done();
}

Status read_fabric(const Library& library, const Gpu& gpu, const Expected&, Observation& out) {
  Values values(library, gpu, out);
  abi::FabricInfo fabric{};
  fabric.version = abi::version_of<abi::FabricInfo>(2);
  const int code = library.call(&F::fabric, gpu.device, &fabric);
  const bool absent = code == abi::kNotSupported || code == abi::kFunctionNotFound || code == abi::kInvalidArgument;
  if (absent || (code == abi::kSuccess && fabric.state == 0)) return values.done();
  if (code != abi::kSuccess) return error_of("nvmlDeviceGetGpuFabricInfoV", code);
  static constexpr const char* kStates[] = {"not supported", "not started", "in progress", "completed"};
  out.values["state"] = std::string(fabric.state < 4 ? kStates[fabric.state] : "unknown");
  if (fabric.state == 3) out.values["status"] = std::string(fabric.status == abi::kSuccess ? "ok" : "failed");
  // Two bits each: 0 not supported, 1 yes, 2 no. "Any bit set" is not a fault: 2 is the healthy answer.
  static constexpr std::pair<const char*, int> kParts[] = {
      {"degraded_bandwidth", 0}, {"route_recovery", 2}, {"route_unhealthy", 4}, {"access_timeout", 6}};
  for (const auto& [name, shift] : kParts) {
    const unsigned answer = (fabric.health_mask >> shift) & 3;
    if (answer != 0) values.set(name, answer == 1 ? 1 : 0);
  }
  // 0 not supported, 1 none, above: what is configured wrongly.
  if (const unsigned answer = (fabric.health_mask >> 8) & 0xf; answer != 0)
    values.set("incorrect_configuration", answer);
  return values.done();
}

Status read_modes(const Library& library, const Gpu& gpu, const Expected&, Observation& out) {
  Values values(library, gpu, out);
  int current = 0, pending = 0;
  if (values.call("ecc", &F::ecc_mode, &current, &pending)) {
    values.set("ecc", current != 0 ? 1 : 0);
    values.set("ecc_pending", pending != 0 ? 1 : 0);
  }
  int persistence = 0;
  if (values.call("persistence", &F::persistence_mode, &persistence)) {
    values.set("persistence", persistence != 0 ? 1 : 0);
  }
  return values.done();
}

constexpr GpuProbe kProbes[] = {
    {"gpu.ecc", seconds(10), seconds(5), read_ecc},
    {"gpu.rows", seconds(30), seconds(5), read_rows},
    {"gpu.pages", seconds(60), seconds(5), read_pages},
    {"gpu.nvlink", seconds(30), seconds(10), read_nvlink},
    {"gpu.pcie", seconds(30), seconds(5), read_pcie},
    {"gpu.temperature", seconds(15), seconds(5), read_temperature},
    {"gpu.throttle", seconds(15), seconds(5), read_throttle},
    {"gpu.power", seconds(15), seconds(5), read_power},
    {"gpu.clocks", seconds(15), seconds(5), read_clocks},
    {"gpu.memory", seconds(15), seconds(5), read_memory},
    {"gpu.use", seconds(15), seconds(5), read_use},
    {"gpu.processes", seconds(15), seconds(5), read_processes},
    {"gpu.fabric", seconds(30), seconds(5), read_fabric},
    {"gpu.modes", minutes(5), seconds(5), read_modes},
};

Observation reading(std::string_view kind, const std::string& device, Instant now) {
  Observation observation;
  observation.kind = kind;
  observation.device = device;
  observation.reading = true;
  observation.time = now;
  return observation;
}

}  // namespace

std::span<const GpuProbe> gpu_probes() { return kProbes; }

Result<std::vector<Observation>> look(const GpuProbe& probe, const Library& library, const Expected& expected,
                                      Instant now) {
  PITCREW_ASSIGN(const std::vector<Gpu> gpus, list_gpus(library));
  std::vector<Observation> observations;
  for (const Gpu& gpu : gpus) {
    if (gpu.lost || gpu.uuid.empty()) continue;
    Observation observation = reading(probe.kind, gpu.uuid, now);
    const Status read = probe.read(library, gpu, expected, observation);
    if (read.ok()) {
      observations.push_back(std::move(observation));
    } else if (read.error().code != Code::kUnsupported && read.error().code != Code::kGone) {
      return read.error().with_context(gpu.uuid);
    }
  }
  return observations;
}

Result<std::vector<Observation>> look_at_gpus(const Library& library, const Expected& expected, Instant now) {
  PITCREW_ASSIGN(const std::vector<Gpu> gpus, list_gpus(library));
  std::vector<Observation> observations;
  Observation count = reading("gpu.count", "", now);
  count.values["count"] = static_cast<double>(gpus.size());
  if (expected.gpus > 0) count.values["expected"] = static_cast<double>(expected.gpus);
  observations.push_back(std::move(count));
  for (const Gpu& gpu : gpus) {
    bool lost = gpu.lost;
    if (!lost) {
      // Names are remembered by the library; a reading that asks the GPU itself tells whether it is there.
      unsigned degrees = 0;
      lost = library.call(&F::temperature, gpu.device, 0, &degrees) == abi::kGpuIsLost;
    }
    if (gpu.uuid.empty() && gpu.pci.empty()) continue;
    Observation observation = reading("gpu.lost", gpu.uuid.empty() ? gpu.pci : gpu.uuid, now);
    observation.values["lost"] = lost ? 1.0 : 0.0;
    observations.push_back(std::move(observation));
  }
  return observations;
}

}  // namespace pitcrew::agent::nvml
