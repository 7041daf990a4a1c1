#pragma once

#include <cstdint>

// The part of NVML's binary interface that the agent calls, written down from NVIDIA's documentation: the library is
// loaded where there is one, so its header is needed nowhere. Names are NVML's, so that they can be looked up.
namespace pitcrew::agent::nvml::abi {

using Device = void*;

enum Return : int {
  kSuccess = 0,
  kUninitialized = 1,
  kInvalidArgument = 2,
  kNotSupported = 3,
  kNoPermission = 4,
  kNotFound = 6,
  kInsufficientSize = 7,
  kDriverNotLoaded = 9,
  kTimeout = 10,
  kFunctionNotFound = 13,
  kGpuIsLost = 15,
  kResetRequired = 16,
  kLibRmVersionMismatch = 18,
  kNoData = 21,
  kUnknown = 999,
};

struct PciInfo {  // nvmlPciInfo_t of nvmlDeviceGetPciInfo_v3
  char bus_id_legacy[16];
  unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
  char bus_id[32];
};

struct Memory {
  unsigned long long total, free, used;
};

struct Utilization {
  unsigned gpu, memory;
};

struct ProcessInfo {  // of nvmlDeviceGetComputeRunningProcesses_v3
  unsigned pid;
  unsigned long long used_gpu_memory;
  unsigned gpu_instance_id, compute_instance_id;
};

struct SramStatus {  // nvmlEccSramErrorStatus_v1_t
  unsigned version;
  unsigned long long aggregate_parity, aggregate_secded, aggregate_corrected;
  unsigned long long volatile_parity, volatile_secded, volatile_corrected;
  unsigned long long bucket_l2, bucket_sm, bucket_pcie, bucket_mcu, bucket_other;
  unsigned threshold_exceeded;
};

struct FabricInfo {  // nvmlGpuFabricInfo_v2_t
  unsigned version;
  unsigned char cluster_uuid[16];
  int status;
  unsigned clique;
  unsigned char state;  // 0 not supported, 1 not started, 2 in progress, 3 completed
  unsigned health_mask;
};

struct EventData {  // nvmlEventData_t
  Device device;
  unsigned long long type, data;
  unsigned gpu_instance_id, compute_instance_id;
};
inline constexpr unsigned long long kEventXid = 0x8;  // nvmlEventTypeXidCriticalError

struct GpmSupport {  // nvmlGpmSupport_t, version 1
  unsigned version, supported;
};
struct GpmMetric {  // nvmlGpmMetric_t
  unsigned id;
  int code;
  double value;
  char *short_name, *long_name, *unit;
};
struct GpmMetrics {  // nvmlGpmMetricsGet_t, version 1; the library touches `count` metrics, however many it knows
  unsigned version, count;
  void *before, *after;
  GpmMetric metrics[16];
};

template <typename T>
constexpr unsigned version_of(unsigned number) {
  return static_cast<unsigned>(sizeof(T)) | (number << 24);
}

// Every function that is called: NVML's name, its name here, its parameters.
#define PITCREW_NVML_FUNCTIONS(X)                                                                   \
  X(nvmlInit_v2, init, ())                                                                          \
  X(nvmlShutdown, shutdown, ())                                                                     \
  X(nvmlSystemGetDriverVersion, driver_version, (char*, unsigned))                                  \
  X(nvmlDeviceGetCount_v2, count, (unsigned*))                                                      \
  X(nvmlDeviceGetHandleByIndex_v2, handle, (unsigned, Device*))                                     \
  X(nvmlDeviceGetUUID, uuid, (Device, char*, unsigned))                                             \
  X(nvmlDeviceGetSerial, serial, (Device, char*, unsigned))                                         \
  X(nvmlDeviceGetName, name, (Device, char*, unsigned))                                             \
  X(nvmlDeviceGetPciInfo_v3, pci, (Device, PciInfo*))                                               \
  X(nvmlDeviceGetTotalEccErrors, ecc_errors, (Device, int, int, unsigned long long*))               \
  X(nvmlDeviceGetSramEccErrorStatus, sram_status, (Device, SramStatus*))                            \
  X(nvmlDeviceGetRemappedRows, remapped_rows, (Device, unsigned*, unsigned*, unsigned*, unsigned*)) \
  X(nvmlDeviceGetRetiredPages, retired_pages, (Device, int, unsigned*, unsigned long long*))        \
  X(nvmlDeviceGetRetiredPagesPendingStatus, retired_pages_pending, (Device, int*))                  \
  X(nvmlDeviceGetNvLinkState, nvlink_state, (Device, unsigned, int*))                               \
  X(nvmlDeviceGetNvLinkErrorCounter, nvlink_errors, (Device, unsigned, int, unsigned long long*))   \
  X(nvmlDeviceGetCurrPcieLinkGeneration, pcie_generation, (Device, unsigned*))                      \
  X(nvmlDeviceGetCurrPcieLinkWidth, pcie_width, (Device, unsigned*))                                \
  X(nvmlDeviceGetMaxPcieLinkGeneration, pcie_max_generation, (Device, unsigned*))                   \
  X(nvmlDeviceGetMaxPcieLinkWidth, pcie_max_width, (Device, unsigned*))                             \
  X(nvmlDeviceGetPcieReplayCounter, pcie_replays, (Device, unsigned*))                              \
  X(nvmlDeviceGetTemperature, temperature, (Device, int, unsigned*))                                \
  X(nvmlDeviceGetTemperatureThreshold, temperature_threshold, (Device, int, unsigned*))             \
  X(nvmlDeviceGetCurrentClocksThrottleReasons, throttle_reasons, (Device, unsigned long long*))     \
  X(nvmlDeviceGetPowerUsage, power, (Device, unsigned*))                                            \
  X(nvmlDeviceGetEnforcedPowerLimit, power_limit, (Device, unsigned*))                              \
  X(nvmlDeviceGetClockInfo, clock, (Device, int, unsigned*))                                        \
  X(nvmlDeviceGetMaxClockInfo, max_clock, (Device, int, unsigned*))                                 \
  X(nvmlDeviceGetMemoryInfo, memory, (Device, Memory*))                                             \
  X(nvmlDeviceGetUtilizationRates, utilization, (Device, Utilization*))                             \
  X(nvmlDeviceGetComputeRunningProcesses_v3, processes, (Device, unsigned*, ProcessInfo*))          \
  X(nvmlDeviceGetGpuFabricInfoV, fabric, (Device, FabricInfo*))                                     \
  X(nvmlDeviceGetEccMode, ecc_mode, (Device, int*, int*))                                           \
  X(nvmlDeviceGetPersistenceMode, persistence_mode, (Device, int*))                                 \
  X(nvmlEventSetCreate, event_set_create, (void**))                                                 \
  X(nvmlEventSetFree, event_set_free, (void*))                                                      \
  X(nvmlDeviceRegisterEvents, register_events, (Device, unsigned long long, void*))                 \
  X(nvmlEventSetWait_v2, event_wait, (void*, EventData*, unsigned))                                 \
  X(nvmlGpmQueryDeviceSupport, gpm_support, (Device, GpmSupport*))                                  \
  X(nvmlGpmSampleAlloc, gpm_sample_alloc, (void**))                                                 \
  X(nvmlGpmSampleFree, gpm_sample_free, (void*))                                                    \
  X(nvmlGpmSampleGet, gpm_sample_get, (Device, void*))                                              \
  X(nvmlGpmMetricsGet, gpm_metrics_get, (GpmMetrics*))

}  // namespace pitcrew::agent::nvml::abi
