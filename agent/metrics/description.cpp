#include "agent/metrics/description.hpp"

#include <algorithm>
#include <vector>

namespace pitcrew::agent {
namespace {

constexpr MetricType kGauge = MetricType::kGauge;
constexpr MetricType kCounter = MetricType::kCounter;
constexpr double kMebi = 1.0 / (1 << 20);

std::optional<double> free_memory(const Observation& o) {
  const auto total = o.number("total"), used = o.number("used");
  if (!total || !used) return std::nullopt;
  return (*total - *used) * kMebi;
}
std::optional<double> missing(const Observation& o) {
  const auto count = o.number("count"), expected = o.number("expected");
  if (!count || !expected) return std::nullopt;
  return std::max(0.0, *expected - *count);
}
std::optional<double> fabric_ready(const Observation& o) {
  const std::string state = o.word("state");
  if (state.empty()) return std::nullopt;
  return state == "completed" && o.word("status") != "failed" ? 1.0 : 0.0;
}

// Names DCGM_FI_* are dcgm-exporter's, with its units, so that its dashboards and alerts go on working.
constexpr MetricRow kRows[] = {
    // ---- GPUs, as dcgm-exporter calls them -------------------------------------------------------------------------
    {"DCGM_FI_DEV_SM_CLOCK", kGauge, "SM clock (MHz)", "gpu.clocks", "sm"},
    {"DCGM_FI_DEV_MEM_CLOCK", kGauge, "Memory clock (MHz)", "gpu.clocks", "memory"},
    {"DCGM_FI_DEV_GPU_TEMP", kGauge, "GPU temperature (C)", "gpu.temperature", "gpu"},
    {"DCGM_FI_DEV_SLOWDOWN_TEMP", kGauge, "Temperature at which the GPU slows down (C)", "gpu.temperature", "slowdown"},
    {"DCGM_FI_DEV_SHUTDOWN_TEMP", kGauge, "Temperature at which the GPU shuts down (C)", "gpu.temperature", "shutdown"},
    {"DCGM_FI_DEV_POWER_USAGE", kGauge, "Power draw (W)", "gpu.power", "watts"},
    {"DCGM_FI_DEV_ENFORCED_POWER_LIMIT", kGauge, "Power limit that is in force (W)", "gpu.power", "limit"},
    {"DCGM_FI_DEV_GPU_UTIL", kGauge, "Share of time in which any kernel ran (%)", "gpu.use", "gpu"},
    {"DCGM_FI_DEV_MEM_COPY_UTIL", kGauge, "Share of time in which memory was read or written (%)", "gpu.use", "memory"},
    {"DCGM_FI_DEV_FB_TOTAL", kGauge, "Frame buffer (MiB)", "gpu.memory", "total", kMebi},
    {"DCGM_FI_DEV_FB_USED", kGauge, "Frame buffer in use (MiB)", "gpu.memory", "used", kMebi},
    {"DCGM_FI_DEV_FB_FREE", kGauge, "Frame buffer that is free (MiB)", "gpu.memory", "total, used", 1, free_memory},
    {"DCGM_FI_DEV_CLOCKS_EVENT_REASONS", kGauge, "Why clocks are held down, as NVML's bits", "gpu.throttle", "reasons"},
    {"DCGM_FI_DEV_XID_ERRORS", kGauge, "The last XID; pitcrew_gpu_xid_total counts them", "", "", 1, nullptr,
     "GPU, err_code"},
    {"DCGM_FI_DEV_ECC_CURRENT", kGauge, "Whether ECC is on", "gpu.modes", "ecc"},
    {"DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", kCounter, "Corrected memory errors since the driver started", "gpu.ecc",
     "corrected"},
    {"DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", kCounter, "Uncorrected memory errors since the driver started", "gpu.ecc",
     "uncorrected"},
    {"DCGM_FI_DEV_ECC_SBE_AGG_TOTAL", kCounter, "Corrected memory errors in the GPU's life", "gpu.ecc",
     "corrected_total"},
    {"DCGM_FI_DEV_ECC_DBE_AGG_TOTAL", kCounter, "Uncorrected memory errors in the GPU's life", "gpu.ecc",
     "uncorrected_total"},
    {"DCGM_FI_DEV_RETIRED_SBE", kCounter, "Pages retired after corrected errors", "gpu.pages", "retired_sbe"},
    {"DCGM_FI_DEV_RETIRED_DBE", kCounter, "Pages retired after an uncorrected error", "gpu.pages", "retired_dbe"},
    {"DCGM_FI_DEV_RETIRED_PENDING", kGauge, "Whether pages wait for a reset to be retired", "gpu.pages", "pending"},
    {"DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", kCounter, "Rows remapped after corrected errors", "gpu.rows",
     "corrected"},
    {"DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", kCounter, "Rows remapped after uncorrected errors", "gpu.rows",
     "uncorrected"},
    {"DCGM_FI_DEV_ROW_REMAP_PENDING", kGauge, "Whether a row waits for a reset to be remapped", "gpu.rows", "pending"},
    {"DCGM_FI_DEV_ROW_REMAP_FAILURE", kGauge, "Whether a row could not be remapped", "gpu.rows", "failed"},
    {"DCGM_FI_DEV_PCIE_LINK_GEN", kGauge, "PCIe generation in use", "gpu.pcie", "generation"},
    {"DCGM_FI_DEV_PCIE_LINK_WIDTH", kGauge, "PCIe lanes in use", "gpu.pcie", "width"},
    {"DCGM_FI_DEV_PCIE_MAX_LINK_GEN", kGauge, "PCIe generation that GPU and slot can do", "gpu.pcie", "max_generation"},
    {"DCGM_FI_DEV_PCIE_MAX_LINK_WIDTH", kGauge, "PCIe lanes that GPU and slot have", "gpu.pcie", "max_width"},
    {"DCGM_FI_DEV_PCIE_REPLAY_COUNTER", kCounter, "PCIe replays", "gpu.pcie", "replays"},
    {"DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL", kCounter, "NVLink replays, all links", "gpu.nvlink", "replays"},
    {"DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL", kCounter, "NVLink recoveries, all links", "gpu.nvlink",
     "recoveries"},
    {"DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL", kCounter, "NVLink CRC errors of flits, all links", "gpu.nvlink",
     "crc"},
    {"DCGM_FI_PROF_GR_ENGINE_ACTIVE", kGauge, "Ratio of time in which the graphics or compute engine was busy",
     "gpu.activity", "graphics"},
    {"DCGM_FI_PROF_SM_ACTIVE", kGauge, "Ratio of time in which an SM had a warp, over all SMs", "gpu.activity", "sm"},
    {"DCGM_FI_PROF_SM_OCCUPANCY", kGauge, "Ratio of warps on an SM to the most it can hold", "gpu.activity",
     "occupancy"},
    {"DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", kGauge, "Ratio of time in which the tensor cores worked", "gpu.activity",
     "tensor"},
    {"DCGM_FI_PROF_DRAM_ACTIVE", kGauge, "Ratio of time in which memory was read or written", "gpu.activity", "dram"},
    {"DCGM_FI_PROF_PCIE_TX_BYTES", kGauge, "Bytes a second sent over PCIe", "gpu.activity", "pcie_tx"},
    {"DCGM_FI_PROF_PCIE_RX_BYTES", kGauge, "Bytes a second received over PCIe", "gpu.activity", "pcie_rx"},
    {"DCGM_FI_PROF_NVLINK_TX_BYTES", kGauge, "Bytes a second sent over NVLink", "gpu.activity", "nvlink_tx"},
    {"DCGM_FI_PROF_NVLINK_RX_BYTES", kGauge, "Bytes a second received over NVLink", "gpu.activity", "nvlink_rx"},
    // ---- GPUs, what has no name there ------------------------------------------------------------------------------
    {"pitcrew_gpu_xid_total", kCounter, "XIDs since the agent started, by code", "", "", 1, nullptr, "GPU, xid"},
    {"pitcrew_gpu_sxid_total", kCounter, "Errors of NVSwitches since the agent started, by code", "", "", 1, nullptr,
     "device, sxid"},
    {"pitcrew_gpu_count", kGauge, "GPUs that NVML lists", "gpu.count", "count"},
    {"pitcrew_gpu_expected", kGauge, "GPUs that the instance type has", "gpu.count", "expected"},
    {"pitcrew_gpu_missing", kGauge, "GPUs that the instance type has and NVML does not list", "gpu.count",
     "count, expected", 1, missing},
    {"pitcrew_gpu_lost", kGauge, "Whether the driver has the GPU and can no longer reach it", "gpu.lost", "lost"},
    {"pitcrew_gpu_temperature_margin_celsius", kGauge, "From its temperature to where the GPU slows down",
     "gpu.temperature", "margin"},
    {"pitcrew_gpu_throttled_hardware", kGauge, "Whether hardware holds the clocks down", "gpu.throttle", "hardware"},
    {"pitcrew_gpu_throttled_thermal", kGauge, "Whether heat holds the clocks down", "gpu.throttle", "thermal"},
    {"pitcrew_gpu_throttled_power_brake", kGauge, "Whether the machine's power brake holds the clocks down",
     "gpu.throttle", "power_brake"},
    {"pitcrew_gpu_throttled_power_cap", kGauge, "Whether the power limit holds the clocks down", "gpu.throttle",
     "power_cap"},
    {"pitcrew_gpu_sram_threshold_exceeded", kGauge, "Whether SRAM has had more uncorrected errors than it may",
     "gpu.ecc", "sram_threshold"},
    {"pitcrew_gpu_nvlinks_active", kGauge, "NVLinks that are up", "gpu.nvlink", "active"},
    {"pitcrew_gpu_nvlinks_expected", kGauge, "NVLinks that a GPU of the instance type has", "gpu.nvlink", "expected"},
    {"pitcrew_gpu_fabric_ready", kGauge, "Whether the GPU has joined its NVLink fabric", "gpu.fabric", "state, status",
     1, fabric_ready},
    {"pitcrew_gpu_fabric_degraded_bandwidth", kGauge, "Whether the fabric is slower than it should be", "gpu.fabric",
     "degraded_bandwidth"},
    {"pitcrew_gpu_fabric_route_unhealthy", kGauge, "Whether a route of the fabric is broken", "gpu.fabric",
     "route_unhealthy"},
    {"pitcrew_gpu_fabric_access_timeout", kGauge, "Whether the fabric timed out", "gpu.fabric", "access_timeout"},
    {"pitcrew_gpu_processes", kGauge, "Processes that compute on the GPU", "gpu.processes", "count"},
    {"pitcrew_gpu_persistence_mode", kGauge, "Whether the driver stays loaded without users", "gpu.modes",
     "persistence"},
    // ---- EFA -------------------------------------------------------------------------------------------------------
    {"pitcrew_efa_count", kGauge, "EFA devices that are there", "efa.count", "count"},
    {"pitcrew_efa_missing", kGauge, "EFA devices that were there, or are on the PCI bus, and have no driver now",
     "efa.count", "count, expected", 1, missing},
    {"pitcrew_efa_tx_bytes_total", kCounter, "Bytes sent", "efa.port", "tx_bytes"},
    {"pitcrew_efa_rx_bytes_total", kCounter, "Bytes received", "efa.port", "rx_bytes"},
    {"pitcrew_efa_tx_packets_total", kCounter, "Packets sent", "efa.port", "tx_pkts"},
    {"pitcrew_efa_rx_packets_total", kCounter, "Packets received", "efa.port", "rx_pkts"},
    {"pitcrew_efa_rx_drops_total", kCounter, "Packets dropped on receipt", "efa.port", "rx_drops"},
    {"pitcrew_efa_send_bytes_total", kCounter, "Bytes of sends", "efa.port", "send_bytes"},
    {"pitcrew_efa_recv_bytes_total", kCounter, "Bytes of receives", "efa.port", "recv_bytes"},
    {"pitcrew_efa_rdma_read_bytes_total", kCounter, "Bytes read from other machines' memory", "efa.port",
     "rdma_read_bytes"},
    {"pitcrew_efa_rdma_read_response_bytes_total", kCounter, "Bytes that other machines read here", "efa.port",
     "rdma_read_resp_bytes"},
    {"pitcrew_efa_rdma_write_bytes_total", kCounter, "Bytes written to other machines' memory", "efa.port",
     "rdma_write_bytes"},
    {"pitcrew_efa_rdma_write_received_bytes_total", kCounter, "Bytes that other machines wrote here", "efa.port",
     "rdma_write_recv_bytes"},
    {"pitcrew_efa_rdma_read_errors_total", kCounter, "RDMA reads that failed", "efa.port", "rdma_read_wr_err"},
    {"pitcrew_efa_rdma_write_errors_total", kCounter, "RDMA writes that failed", "efa.port", "rdma_write_wr_err"},
    {"pitcrew_efa_retransmitted_bytes_total", kCounter, "Bytes sent again", "efa.port", "retrans_bytes"},
    {"pitcrew_efa_retransmitted_packets_total", kCounter, "Packets sent again", "efa.port", "retrans_pkts"},
    {"pitcrew_efa_retransmission_timeouts_total", kCounter, "Times that nobody acknowledged in time", "efa.port",
     "retrans_timeout_events"},
    {"pitcrew_efa_unresponsive_remotes_total", kCounter,
     "Times that a remote end did not answer; which end is bad needs both", "efa.port", "unresponsive_remote_events"},
    {"pitcrew_efa_impaired_remotes_total", kCounter, "Times that a connection to a remote end was impaired", "efa.port",
     "impaired_remote_conn_events"},
    {"pitcrew_efa_admin_commands_total", kCounter, "Commands given to the device", "efa.admin", "submitted_cmds"},
    {"pitcrew_efa_admin_errors_total", kCounter, "Commands that failed", "efa.admin", "cmds_err"},
    {"pitcrew_efa_admin_unanswered_total", kCounter, "Commands that the device did not answer", "efa.admin",
     "no_completion_cmds"},
    {"pitcrew_efa_keep_alives_total", kCounter, "Signs of life from the device", "efa.admin", "keep_alive_rcvd"},
    // ---- Lustre ----------------------------------------------------------------------------------------------------
    {"pitcrew_lustre_read_bytes_total", kCounter, "Bytes read", "lustre.client", "read_bytes"},
    {"pitcrew_lustre_write_bytes_total", kCounter, "Bytes written", "lustre.client", "write_bytes"},
    {"pitcrew_lustre_read_calls_total", kCounter, "Reads", "lustre.client", "read_calls"},
    {"pitcrew_lustre_write_calls_total", kCounter, "Writes", "lustre.client", "write_calls"},
    {"pitcrew_lustre_read_seconds_total", kCounter, "Time spent in reads", "lustre.client", "read_seconds"},
    {"pitcrew_lustre_write_seconds_total", kCounter, "Time spent in writes", "lustre.client", "write_seconds"},
    {"pitcrew_lustre_metadata_calls_total", kCounter, "Opens, closes, stats and the like", "lustre.client",
     "metadata_calls"},
    {"pitcrew_lustre_metadata_seconds_total", kCounter, "Time spent in them", "lustre.client", "metadata_seconds"},
    {"pitcrew_lustre_connected", kGauge, "Whether the client is connected to the server's target, or idle",
     "lustre.target", "connected"},
    {"pitcrew_lustre_evictions_total", kCounter, "Times that the server threw this client out", "lustre.target",
     "evictions"},
    {"pitcrew_lustre_timeouts_total", kCounter, "Calls that nobody answered in time", "lustre.target", "timeouts"},
    {"pitcrew_lustre_inflight", kGauge, "Calls under way", "lustre.target", "inflight"},
    {"pitcrew_lustre_wait_seconds", kGauge, "Mean time from call to answer", "lustre.target", "wait_seconds"},
    // ---- the node --------------------------------------------------------------------------------------------------
    {"pitcrew_node_nvme_count", kGauge, "Local NVMe disks", "nvme.count", "count"},
    {"pitcrew_node_nvme_missing", kGauge, "NVMe disks that the instance type has and that are not there", "nvme.count",
     "count, expected", 1, missing},
    {"pitcrew_node_nvme_live", kGauge, "Whether the disk's controller works", "nvme.disk", "live"},
    {"pitcrew_node_nvme_temperature_celsius", kGauge, "The disk's temperature", "nvme.disk", "temperature"},
    {"pitcrew_node_disk_bytes", kGauge, "Size of the file system", "disk.space", "bytes"},
    {"pitcrew_node_disk_available_bytes", kGauge, "Room on it", "disk.space", "available_bytes"},
    {"pitcrew_node_disk_inodes_used_percent", kGauge, "Share of its inodes in use", "disk.space",
     "inodes_used_percent"},
    {"pitcrew_node_disk_read_only", kGauge, "Whether it was made read-only after an error", "disk.space", "read_only"},
    {"pitcrew_node_memory_bytes", kGauge, "Memory", "node.memory", "bytes"},
    {"pitcrew_node_memory_available_bytes", kGauge, "Memory that programs can still get", "node.memory",
     "available_bytes"},
    {"pitcrew_node_memory_corrupted_bytes", kGauge, "Memory that the kernel has taken out of use because it was bad",
     "node.memory", "corrupted_bytes"},
    {"pitcrew_node_oom_kills_total", kCounter, "Processes killed for want of memory", "node.memory", "oom_kills"},
    {"pitcrew_node_threads", kGauge, "Threads", "node.pids", "threads"},
    {"pitcrew_node_threads_limit", kGauge, "How many there can be", "node.pids", "limit"},
    {"pitcrew_node_files_open", kGauge, "Open files", "node.files", "open"},
    {"pitcrew_node_files_limit", kGauge, "How many there can be", "node.files", "limit"},
    {"pitcrew_node_pressure_cpu_percent", kGauge, "Time in which something waited for a CPU, last 60 s",
     "node.pressure", "cpu_some_percent"},
    {"pitcrew_node_pressure_memory_percent", kGauge, "Time in which all waited for memory", "node.pressure",
     "memory_full_percent"},
    {"pitcrew_node_pressure_io_percent", kGauge, "Time in which all waited for disks", "node.pressure",
     "io_full_percent"},
    {"pitcrew_node_clock_synchronized", kGauge, "Whether the clock is kept right", "clock", "synchronized"},
    {"pitcrew_node_clock_offset_seconds", kGauge, "How far it is from right", "clock", "offset_seconds"},
    {"pitcrew_node_clock_max_error_seconds", kGauge, "How far it could be", "clock", "max_error_seconds"},
    {"pitcrew_node_version_clashes", kGauge, "Versions of drivers and libraries that are known not to go together",
     "versions", "clashes"},
    {"pitcrew_node_kernel_events_total", kCounter, "Lines of the kernel log that mean something, by kind", "", "", 1,
     nullptr, "kind"},
    // ---- what the agent thinks and does ----------------------------------------------------------------------------
    {"pitcrew_node_healthy", kGauge, "Whether no rule of severity Fault holds", "", "", 1, nullptr, ""},
    {"pitcrew_node_quarantined", kGauge, "Whether the agent's taint is on the node", "", "", 1, nullptr, ""},
    {"pitcrew_node_cordon_refused", kGauge, "Whether the node is unhealthy and the CordonBudget has no token", "", "",
     1, nullptr, ""},
    {"pitcrew_node_held", kGauge, "Whether people hold the node as it is", "", "", 1, nullptr, ""},
    {"pitcrew_verdict", kGauge, "1 for each rule that holds; the GPU's labels where it is about one", "", "", 1,
     nullptr, "rule, device, severity, action"},
    {"pitcrew_rule_matches_total", kCounter, "Matches of each rule since the agent started, whatever followed", "", "",
     1, nullptr, "rule"},
    {"pitcrew_cordons_total", kCounter, "Cordons by this agent since it started", "", "", 1, nullptr, ""},
    {"pitcrew_uncordons_total", kCounter, "Cordons that it took back", "", "", 1, nullptr, ""},
    {"pitcrew_cordon_seconds", kGauge, "From the last fault that cordoned to the cordon", "", "", 1, nullptr, ""},
    {"pitcrew_probe_up", kGauge, "Whether the probe's last look went well", "", "", 1, nullptr, "probe"},
    {"pitcrew_probe_seconds", kGauge, "How long its last look took", "", "", 1, nullptr, "probe"},
    {"pitcrew_probe_looks_total", kCounter, "Looks since the agent started", "", "", 1, nullptr, "probe"},
    {"pitcrew_probe_failures_total", kCounter, "Looks that failed or took too long", "", "", 1, nullptr, "probe"},
    {"pitcrew_kernel_log_lines_total", kCounter, "Lines of the kernel log that were looked at", "", "", 1, nullptr, ""},
    {"pitcrew_api_writes_total", kCounter, "What was told to the cluster, by errand", "", "", 1, nullptr, "errand"},
    {"pitcrew_api_failures_total", kCounter, "What could not be told and is tried again", "", "", 1, nullptr, "errand"},
    {"pitcrew_events_dropped_total", kCounter, "Events that were not written: too many, or refused", "", "", 1, nullptr,
     ""},
    {"pitcrew_policy_problems", kGauge, "HealthPolicies of the cluster that could not be used", "", "", 1, nullptr, ""},
    {"pitcrew_build_info", kGauge, "1; the version is a label", "", "", 1, nullptr, "version"},
};

struct Section {
  std::string_view begins;  // with this metric
  std::string_view title;
  std::string_view text;
};
constexpr Section kSections[] = {
    {"DCGM_FI_DEV_SM_CLOCK", "GPUs, as dcgm-exporter calls them",
     "Labels: `gpu`, `UUID`, `pci_bus_id`, `device`, `modelName`, `Hostname`, `DCGM_FI_DRIVER_VERSION`, as there; and "
     "for a GPU "
     "in use `pod`, `namespace`, `container`, and `job`: the TrainingJob's name, of another pod its name without the "
     "number at its end."},
    {"pitcrew_gpu_xid_total", "GPUs, what has no name there", "The same labels where a metric is about one GPU."},
    {"pitcrew_efa_count", "EFA", "Label: `device`, the RDMA device's name."},
    {"pitcrew_lustre_read_bytes_total", "Lustre", "Label: `filesystem`, or `target` of a server's part of it."},
    {"pitcrew_node_nvme_count", "The node", "Label: `device` of an NVMe disk, `mountpoint` of a file system."},
    {"pitcrew_node_healthy", "What the agent thinks and does", ""},
};

}  // namespace

std::span<const MetricRow> metric_rows() { return kRows; }

const MetricRow& metric_row(std::string_view name) {
  for (const MetricRow& row : kRows) {
    if (row.name == name) return row;
  }
  PITCREW_INVARIANT(false, "no such metric: " + std::string(name));
}

std::string_view device_label(std::string_view kind) {
  if (kind.starts_with("gpu.")) return "";
  if (kind == "lustre.client") return "filesystem";
  if (kind == "lustre.target") return "target";
  if (kind == "disk.space") return "mountpoint";
  return "device";
}

std::string metrics_page() {
  std::string page =
      "# Metrics of the agent\n\n"
      "Made from agent/metrics/description.cpp by `scripts/generate`; change it there.\n\n"
      "The agent serves them on `/metrics` (port 9400, dcgm-exporter's). It takes the place of dcgm-exporter and of an "
      "EFA exporter, or\n"
      "runs beside them. A reading that is older than five minutes is left out, so a GPU that is gone shows nothing "
      "stale; that it is\n"
      "gone is in `pitcrew_gpu_missing` and `pitcrew_gpu_lost`.\n"
      "Beside these there are the process's own `process_*`.\n";
  for (const MetricRow& row : kRows) {
    const auto section = std::find_if(std::begin(kSections), std::end(kSections),
                                      [&](const Section& s) { return s.begins == row.name; });
    if (section != std::end(kSections)) {
      page += "\n## " + std::string(section->title) + "\n\n";
      if (!section->text.empty()) page += std::string(section->text) + "\n\n";
      page += "| metric | type | what it says | from |\n|---|---|---|---|\n";
    }
    std::string from = row.kind.empty() ? (row.labels.empty() ? "" : "labels: " + std::string(row.labels))
                                        : "`" + std::string(row.kind) + "` " + std::string(row.value);
    page += "| `" + std::string(row.name) + "` | " + (row.type == kGauge ? "gauge" : "counter") + " | " +
            std::string(row.help) + " | " + from + " |\n";
  }
  return page;
}

}  // namespace pitcrew::agent
