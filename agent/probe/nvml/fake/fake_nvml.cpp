// A libnvidia-ml.so.1 for tests. It plays the machine of the capture that PITCREW_NVML_CAPTURE names (else capture.yaml
// beside the library), and reads faults from the file that PITCREW_NVML_FAULTS names (else faults.yaml there) whenever
// that has changed:
//
//   driver: gone                      nothing answers (driver not loaded); or: mismatch
//   missing: [7]                      the GPU is not listed any more
//   lost: [3]                         it is listed and does not answer
//   set: {2: {ecc_uncorrected: 1}}    values of one GPU
//   unset: {2: [power]}               values that it can no more give
//   hang: [temperature]               calls for such a value don't return until the fault is taken back
//   error: {5: {rows: 999}}           calls for such a value return this code
//   xids: [{id: 1, gpu: 2, code: 79}] events; each id is told once to everybody who has registered for the GPU
//
// `processes` of a GPU have the numbers 4242, 4243, …; the value first_pid puts another beginning there.
// GPM's metrics are the values gpm_<number>, in NVML's units (percent; MiB/s).
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include <dlfcn.h>
#include <sys/stat.h>

#include "agent/probe/nvml/abi.hpp"
#include "lib/base/file.hpp"
#include "lib/base/yaml.hpp"

namespace {

using namespace pitcrew;
using namespace pitcrew::agent::nvml::abi;

using Values = std::map<std::string, double>;

struct Card {
  std::string uuid, serial, name;
  unsigned domain = 0, bus = 0, device = 0;
};

struct Faults {
  std::string driver;
  std::set<unsigned> missing, lost;
  std::map<unsigned, Values> set;
  std::map<unsigned, std::set<std::string>> unset;
  std::map<unsigned, std::map<std::string, int>> error;
  std::set<std::string> hang;
  std::map<unsigned, std::pair<unsigned, unsigned>> xids;  // by id: GPU, code
};

struct EventSet {
  std::set<unsigned> gpus;
  std::set<unsigned> told;
};

// The file that the variable names, else the one of that name beside this library.
std::string path_of(const char* variable, const char* file) {
  if (const char* path = std::getenv(variable)) return path;
  Dl_info library{};
  if (dladdr(reinterpret_cast<const void*>(&path_of), &library) == 0) return file;
  const std::string self = library.dli_fname;
  return self.substr(0, self.rfind('/') + 1) + file;
}
std::string capture_path() { return path_of("PITCREW_NVML_CAPTURE", "capture.yaml"); }
std::string faults_path() { return path_of("PITCREW_NVML_FAULTS", "faults.yaml"); }

Json load(const std::string& path) {
  const auto text = read_file(posix_file_system(), path, 1 << 20);
  if (!text) return nullptr;
  const auto documents = parse_yaml(*text);
  return documents && !documents->empty() ? documents->front().json : Json();
}

template <typename F>
void each_gpu(const Json& json, const char* key, F&& f) {
  if (!json.is_object() || !json.contains(key)) return;
  for (const auto& [gpu, value] : json.at(key).items())
    f(static_cast<unsigned>(std::strtoul(gpu.c_str(), nullptr, 10)), value);
}

Faults read_faults(const Json& json) {
  Faults faults;
  if (!json.is_object()) return faults;
  faults.driver = json.value("driver", "");
  for (const auto& gpu : json.value("missing", Json::array())) faults.missing.insert(gpu.get<unsigned>());
  for (const auto& gpu : json.value("lost", Json::array())) faults.lost.insert(gpu.get<unsigned>());
  for (const auto& name : json.value("hang", Json::array())) faults.hang.insert(name.get<std::string>());
  for (const auto& xid : json.value("xids", Json::array())) {
    faults.xids[xid.value("id", 0u)] = {xid.value("gpu", 0u), xid.value("code", 0u)};
  }
  each_gpu(json, "set", [&](unsigned gpu, const Json& values) {
    for (const auto& [name, value] : values.items()) faults.set[gpu][name] = value.get<double>();
  });
  each_gpu(json, "unset", [&](unsigned gpu, const Json& names) {
    for (const auto& name : names) faults.unset[gpu].insert(name.get<std::string>());
  });
  each_gpu(json, "error", [&](unsigned gpu, const Json& codes) {
    for (const auto& [name, code] : codes.items()) faults.error[gpu][name] = code.get<int>();
  });
  return faults;
}

class Machine {
 public:
  void start() {
    const std::lock_guard lock(mutex_);
    const Json json = load(capture_path());
    cards_.clear();
    values_.clear();
    if (!json.is_object()) return;
    driver_ = json.value("driver", "");
    for (const auto& gpu : json.value("gpus", Json::array())) {
      cards_.push_back({gpu.value("uuid", ""), gpu.value("serial", ""), gpu.value("name", ""), gpu.value("domain", 0u),
                        gpu.value("bus", 0u), gpu.value("device", 0u)});
    }
    const Json values = json.value("values", Json::object());
    for (const auto& [name, value] : values.items()) values_[name] = value.get<double>();
  }

  // What every call asks first; and takes in what has changed.
  int driver() {
    const std::lock_guard lock(mutex_);
    refresh();
    if (cards_.empty() || faults_.driver == "gone") return kDriverNotLoaded;
    return faults_.driver == "mismatch" ? kLibRmVersionMismatch : kSuccess;
  }
  std::string version() { return driver_; }

  // The cards that are listed, by their place in the capture.
  std::vector<unsigned> listed() {
    const std::lock_guard lock(mutex_);
    std::vector<unsigned> all;
    for (unsigned i = 0; i < cards_.size(); ++i) {
      if (!faults_.missing.contains(i)) all.push_back(i);
    }
    return all;
  }
  const Card& card(unsigned gpu) const { return cards_[gpu]; }
  bool lost(unsigned gpu) {
    const std::lock_guard lock(mutex_);
    return faults_.lost.contains(gpu);
  }

  bool next_event(EventSet& set, unsigned& gpu, unsigned& code) {
    const std::lock_guard lock(mutex_);
    refresh();
    for (const auto& [id, xid] : faults_.xids) {
      if (!set.gpus.contains(xid.first) || !set.told.insert(id).second) continue;
      std::tie(gpu, code) = xid;
      return true;
    }
    return false;
  }

  int value(unsigned gpu, const std::string& name, double& out) {
    if (const int code = driver(); code != kSuccess) return code;
    while (hangs(name)) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    const std::lock_guard lock(mutex_);
    if (faults_.lost.contains(gpu)) return kGpuIsLost;
    if (const auto errors = faults_.error.find(gpu); errors != faults_.error.end()) {
      if (const auto error = errors->second.find(name); error != errors->second.end()) return error->second;
    }
    if (const auto unset = faults_.unset.find(gpu); unset != faults_.unset.end() && unset->second.contains(name)) {
      return kUnknown;
    }
    if (const auto set = faults_.set.find(gpu); set != faults_.set.end()) {
      if (const auto found = set->second.find(name); found != set->second.end()) return out = found->second, kSuccess;
    }
    const auto found = values_.find(name);
    if (found == values_.end()) return kNotSupported;
    return out = found->second, kSuccess;
  }

 private:
  bool hangs(const std::string& name) {
    const std::lock_guard lock(mutex_);
    refresh();
    return faults_.hang.contains(name);
  }

  void refresh() {
    const std::string path = faults_path();
    struct stat state {};
    if (::stat(path.c_str(), &state) != 0) return;
    const auto stamp = std::tuple(state.st_ino, state.st_mtim.tv_sec, state.st_mtim.tv_nsec, state.st_size);
    if (stamp == stamp_) return;
    stamp_ = stamp;
    faults_ = read_faults(load(path));
  }

  std::mutex mutex_;
  std::string driver_;
  std::vector<Card> cards_;
  Values values_;
  Faults faults_;
  std::tuple<ino_t, time_t, long, off_t> stamp_;
};

Machine& machine() {
  static Machine machine;
  return machine;
}

// Handles are the card's place plus one, so that none is null.
unsigned gpu_of(Device device) { return static_cast<unsigned>(reinterpret_cast<uintptr_t>(device)) - 1; }

template <typename Number>
int give(Device device, const char* name, Number* out) {
  double value = 0;
  const int code = machine().value(gpu_of(device), name, value);
  if (code == kSuccess) *out = static_cast<Number>(value);
  return code;
}

int give_text(Device device, const std::string& text, char* out, unsigned length) {
  if (const int code = machine().driver(); code != kSuccess) return code;
  if (machine().lost(gpu_of(device))) return kGpuIsLost;
  if (text.size() + 1 > length) return kInsufficientSize;
  std::memcpy(out, text.c_str(), text.size() + 1);
  return kSuccess;
}

}  // namespace

extern "C" {

int nvmlInit_v2() {
  machine().start();
  return machine().driver();
}
int nvmlShutdown() { return kSuccess; }
int nvmlSystemGetDriverVersion(char* out, unsigned length) {
  if (const int code = machine().driver(); code != kSuccess) return code;
  std::strncpy(out, machine().version().c_str(), length);
  return kSuccess;
}
int nvmlDeviceGetCount_v2(unsigned* count) {
  if (const int code = machine().driver(); code != kSuccess) return code;
  *count = static_cast<unsigned>(machine().listed().size());
  return kSuccess;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device* device) {
  if (const int code = machine().driver(); code != kSuccess) return code;
  const auto listed = machine().listed();
  if (index >= listed.size()) return kInvalidArgument;
  *device = reinterpret_cast<Device>(static_cast<uintptr_t>(listed[index]) + 1);
  return kSuccess;
}
// A lost GPU's names are remembered by the real library too.
int nvmlDeviceGetUUID(Device device, char* out, unsigned length) {
  std::strncpy(out, machine().card(gpu_of(device)).uuid.c_str(), length);
  return machine().driver();
}
int nvmlDeviceGetSerial(Device device, char* out, unsigned length) {
  return give_text(device, machine().card(gpu_of(device)).serial, out, length);
}
int nvmlDeviceGetName(Device device, char* out, unsigned length) {
  return give_text(device, machine().card(gpu_of(device)).name, out, length);
}
int nvmlDeviceGetPciInfo_v3(Device device, PciInfo* out) {
  const Card& card = machine().card(gpu_of(device));
  *out = {};
  out->domain = card.domain;
  out->bus = card.bus;
  out->device = card.device;
  return machine().driver();
}
int nvmlDeviceGetTotalEccErrors(Device device, int type, int counter, unsigned long long* out) {
  const char* names[2][2] = {{"ecc_corrected", "ecc_corrected_total"}, {"ecc_uncorrected", "ecc_uncorrected_total"}};
  return give(device, names[type & 1][counter & 1], out);
}
int nvmlDeviceGetSramEccErrorStatus(Device device, SramStatus* out) {
  return give(device, "sram_threshold", &out->threshold_exceeded);
}
int nvmlDeviceGetRemappedRows(Device device, unsigned* corrected, unsigned* uncorrected, unsigned* pending,
                              unsigned* failed) {
  double any = 0;
  if (const int code = machine().value(gpu_of(device), "rows", any); code != kSuccess && code != kNotSupported)
    return code;
  if (const int code = give(device, "rows_corrected", corrected); code != kSuccess) return code;
  if (const int code = give(device, "rows_uncorrected", uncorrected); code != kSuccess) return code;
  if (const int code = give(device, "rows_pending", pending); code != kSuccess) return code;
  return give(device, "rows_failed", failed);
}
int nvmlDeviceGetRetiredPages(Device device, int cause, unsigned* count, unsigned long long*) {
  const int code = give(device, cause == 0 ? "pages_sbe" : "pages_dbe", count);
  return code == kSuccess && *count > 0 ? kInsufficientSize : code;
}
int nvmlDeviceGetRetiredPagesPendingStatus(Device device, int* out) { return give(device, "pages_pending", out); }
int nvmlDeviceGetNvLinkState(Device device, unsigned link, int* out) {
  unsigned links = 0, down = 0;
  if (const int code = give(device, "nvlinks", &links); code != kSuccess) return code;
  if (link >= links) return kInvalidArgument;
  if (const int code = give(device, "nvlinks_down", &down); code != kSuccess) return code;
  *out = link >= down ? 1 : 0;
  return kSuccess;
}
int nvmlDeviceGetNvLinkErrorCounter(Device device, unsigned link, int counter, unsigned long long* out) {
  const char* names[] = {"nvlink_replays", "nvlink_recoveries", "nvlink_crc"};
  if (counter < 0 || counter > 2) return kNotSupported;
  const int code = give(device, names[counter], out);
  if (code == kSuccess && link != 0) *out = 0;
  return code;
}
int nvmlDeviceGetCurrPcieLinkGeneration(Device device, unsigned* out) { return give(device, "pcie_generation", out); }
int nvmlDeviceGetCurrPcieLinkWidth(Device device, unsigned* out) { return give(device, "pcie_width", out); }
int nvmlDeviceGetMaxPcieLinkGeneration(Device device, unsigned* out) {
  return give(device, "pcie_max_generation", out);
}
int nvmlDeviceGetMaxPcieLinkWidth(Device device, unsigned* out) { return give(device, "pcie_max_width", out); }
int nvmlDeviceGetPcieReplayCounter(Device device, unsigned* out) { return give(device, "pcie_replays", out); }
int nvmlDeviceGetTemperature(Device device, int, unsigned* out) { return give(device, "temperature", out); }
int nvmlDeviceGetTemperatureThreshold(Device device, int type, unsigned* out) {
  const char* names[] = {"temperature_shutdown", "temperature_slowdown", "temperature_memory_max"};
  return type < 0 || type > 2 ? kNotSupported : give(device, names[type], out);
}
int nvmlDeviceGetCurrentClocksThrottleReasons(Device device, unsigned long long* out) {
  return give(device, "throttle_reasons", out);
}
int nvmlDeviceGetPowerUsage(Device device, unsigned* out) { return give(device, "power", out); }
int nvmlDeviceGetEnforcedPowerLimit(Device device, unsigned* out) { return give(device, "power_limit", out); }
int nvmlDeviceGetClockInfo(Device device, int type, unsigned* out) {
  return give(device, type == 2 ? "clock_memory" : "clock_sm", out);
}
int nvmlDeviceGetMaxClockInfo(Device device, int type, unsigned* out) {
  return give(device, type == 2 ? "clock_memory_max" : "clock_sm_max", out);
}
int nvmlDeviceGetMemoryInfo(Device device, Memory* out) {
  if (const int code = give(device, "memory_total", &out->total); code != kSuccess) return code;
  if (const int code = give(device, "memory_used", &out->used); code != kSuccess) return code;
  out->free = out->total - out->used;
  return kSuccess;
}
int nvmlDeviceGetUtilizationRates(Device device, Utilization* out) {
  if (const int code = give(device, "use_gpu", &out->gpu); code != kSuccess) return code;
  return give(device, "use_memory", &out->memory);
}
int nvmlDeviceGetComputeRunningProcesses_v3(Device device, unsigned* count, ProcessInfo* out) {
  unsigned running = 0;
  if (const int code = give(device, "processes", &running); code != kSuccess) return code;
  if (running > *count) return *count = running, kInsufficientSize;
  unsigned first = 4242;
  give(device, "first_pid", &first);
  for (unsigned i = 0; i < running; ++i) out[i] = {first + i, 1ull << 30, 0xffffffff, 0xffffffff};
  return *count = running, kSuccess;
}
int nvmlDeviceGetGpuFabricInfoV(Device device, FabricInfo* out) {
  unsigned state = 0, status = 0;
  if (const int code = give(device, "fabric_state", &state); code != kSuccess) return code;
  if (const int code = give(device, "fabric_status", &status); code != kSuccess) return code;
  out->state = static_cast<unsigned char>(state);
  out->status = static_cast<int>(status);
  return give(device, "fabric_health", &out->health_mask);
}
int nvmlDeviceGetEccMode(Device device, int* current, int* pending) {
  if (const int code = give(device, "ecc_mode", current); code != kSuccess) return code;
  return give(device, "ecc_mode_pending", pending);
}
int nvmlDeviceGetPersistenceMode(Device device, int* out) { return give(device, "persistence_mode", out); }
int nvmlEventSetCreate(void** set) {
  if (const int code = machine().driver(); code != kSuccess) return code;
  *set = new EventSet;
  return kSuccess;
}
int nvmlEventSetFree(void* set) {
  delete static_cast<EventSet*>(set);
  return kSuccess;
}
int nvmlDeviceRegisterEvents(Device device, unsigned long long types, void* set) {
  if ((types & kEventXid) == 0) return kNotSupported;
  static_cast<EventSet*>(set)->gpus.insert(gpu_of(device));
  return kSuccess;
}
int nvmlEventSetWait_v2(void* set, EventData* out, unsigned) {
  if (const int code = machine().driver(); code != kSuccess) return code;
  unsigned gpu = 0, xid = 0;
  if (!machine().next_event(*static_cast<EventSet*>(set), gpu, xid)) return kTimeout;
  *out = {reinterpret_cast<Device>(static_cast<uintptr_t>(gpu) + 1), kEventXid, xid, 0xffffffff, 0xffffffff};
  return kSuccess;
}
int nvmlGpmQueryDeviceSupport(Device device, GpmSupport* out) {
  double any = 0;
  const int code = machine().value(gpu_of(device), "gpm_2", any);
  out->supported = code == kSuccess ? 1 : 0;
  return code == kNotSupported ? kSuccess : code;
}
int nvmlGpmSampleAlloc(void** sample) {
  *sample = new Device(nullptr);
  return kSuccess;
}
int nvmlGpmSampleFree(void* sample) {
  delete static_cast<Device*>(sample);
  return kSuccess;
}
int nvmlGpmSampleGet(Device device, void* sample) {
  *static_cast<Device*>(sample) = device;
  double any = 0;
  return machine().value(gpu_of(device), "gpm_2", any);
}
int nvmlGpmMetricsGet(GpmMetrics* metrics) {
  const Device device = *static_cast<Device*>(metrics->after);
  if (metrics->version != 1 || device == nullptr || device != *static_cast<Device*>(metrics->before)) {
    return kInvalidArgument;
  }
  for (unsigned i = 0; i < metrics->count; ++i) {
    GpmMetric& metric = metrics->metrics[i];
    metric.code = machine().value(gpu_of(device), "gpm_" + std::to_string(metric.id), metric.value);
  }
  return kSuccess;
}

}  // extern "C"
