#include "agent/app/once.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <thread>

#include <fcntl.h>
#include <unistd.h>

#include "agent/app/ledger.hpp"
#include "agent/app/machine.hpp"
#include "agent/judge/builtin_policy.hpp"
#include "agent/probe/kernel_log/reader.hpp"
#include "agent/probe/pods/gpu_users.hpp"
#include "agent/probe/table/table.hpp"

namespace pitcrew::agent {
namespace {

constexpr Duration kPatience = seconds(30);

using Row = std::vector<std::string>;

void print_table(const std::vector<Row>& rows, std::ostream& out) {
  std::vector<size_t> widths;
  for (const Row& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  for (const Row& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) line += std::string(widths[i] - row[i].size() + 2, ' ');
    }
    out << line.substr(0, line.find_last_not_of(' ') + 1) << "\n";
  }
}

std::string rounded(double value) {
  return to_string(Value(std::abs(value) < 100 ? std::round(value * 10) / 10 : std::round(value)));
}

// The newest reading of each kind and device.
class Seen {
 public:
  void take(const Observation& one) {
    if (one.reading) readings_[one.kind][one.device] = one;
    if (one.kind == kinds::kProbe) probes_[one.word("probe")] = one;
  }
  std::vector<std::string> devices(const std::string& kind) const {
    std::vector<std::string> names;
    if (const auto found = readings_.find(kind); found != readings_.end()) {
      for (const auto& [device, reading] : found->second) names.push_back(device);
    }
    return names;
  }
  std::string value(const std::string& kind, const std::string& device, const std::string& name,
                    double scale = 1) const {
    const Observation* one = find(kind, device);
    if (one == nullptr || !one->values.contains(name)) return "-";
    const auto number = one->number(name);
    return number ? rounded(*number * scale) : one->word(name);
  }
  const Observation* find(const std::string& kind, const std::string& device) const {
    const auto of_kind = readings_.find(kind);
    if (of_kind == readings_.end()) return nullptr;
    const auto found = of_kind->second.find(device);
    return found == of_kind->second.end() ? nullptr : &found->second;
  }
  const std::map<std::string, Observation>& probes() const { return probes_; }

 private:
  std::map<std::string, std::map<std::string, Observation>> readings_;
  std::map<std::string, Observation> probes_;
};

void print_gpus(const Seen& seen, const GpuUsers& users, std::ostream& out) {
  std::vector<std::pair<double, std::string>> gpus;
  for (const std::string& uuid : seen.devices("gpu.identity"))
    gpus.emplace_back(seen.find("gpu.identity", uuid)->number("index").value_or(0), uuid);
  if (gpus.empty()) {
    out << "GPUs: none\n";
    return;
  }
  std::sort(gpus.begin(), gpus.end());
  out << "driver " << seen.value("gpu.identity", gpus.front().second, "driver") << ", "
      << seen.value("gpu.count", "", "count") << " GPUs";
  if (const auto expected = seen.value("gpu.count", "", "expected"); expected != "-") out << " of " << expected;
  out << "\n\n";
  std::vector<Row> rows{{"GPU", "UUID", "PCI", "MODEL", "TEMP C", "POWER W", "USE %", "TENSOR", "MEMORY GiB", "ECC UNC",
                         "ROWS UNC/PEND/FAIL", "NVLINKS", "PCIE", "POD"}};
  for (const auto& [index, uuid] : gpus) {
    const auto user = users.users().find(uuid);
    rows.push_back(
        {rounded(index), uuid, seen.value("gpu.identity", uuid, "pci"), seen.value("gpu.identity", uuid, "model"),
         seen.value("gpu.temperature", uuid, "gpu"),
         seen.value("gpu.power", uuid, "watts") + "/" + seen.value("gpu.power", uuid, "limit"),
         seen.value("gpu.use", uuid, "gpu"), seen.value("gpu.activity", uuid, "tensor"),
         seen.value("gpu.memory", uuid, "used", 1.0 / (1 << 30)) + "/" +
             seen.value("gpu.memory", uuid, "total", 1.0 / (1 << 30)),
         seen.value("gpu.ecc", uuid, "uncorrected") + "/" + seen.value("gpu.ecc", uuid, "uncorrected_total"),
         seen.value("gpu.rows", uuid, "uncorrected") + "/" + seen.value("gpu.rows", uuid, "pending") + "/" +
             seen.value("gpu.rows", uuid, "failed"),
         seen.value("gpu.nvlink", uuid, "active") + "/" + seen.value("gpu.nvlink", uuid, "links"),
         "gen" + seen.value("gpu.pcie", uuid, "generation") + " x" + seen.value("gpu.pcie", uuid, "width"),
         user == users.users().end() || user->second.pod.empty() ? "-" : user->second.ns + "/" + user->second.pod});
  }
  print_table(rows, out);
}

void print_efa(const Seen& seen, std::ostream& out) {
  const auto devices = seen.devices("efa.port");
  if (devices.empty()) return;
  out << "\n";
  std::vector<Row> rows{{"EFA", "RX GB", "TX GB", "RDMA READ GB", "RDMA WRITE GB", "DROPS", "RETRANSMITTED",
                         "UNRESPONSIVE", "UNANSWERED"}};
  for (const std::string& device : devices) {
    const auto port = [&](const char* name, double scale = 1) { return seen.value("efa.port", device, name, scale); };
    rows.push_back({device, port("rx_bytes", 1e-9), port("tx_bytes", 1e-9), port("rdma_read_bytes", 1e-9),
                    port("rdma_write_bytes", 1e-9), port("rx_drops"), port("retrans_pkts"),
                    port("unresponsive_remote_events"), seen.value("efa.admin", device, "no_completion_cmds")});
  }
  print_table(rows, out);
}

void print_rest(const Seen& seen, std::ostream& out) {
  std::vector<Row> rows;
  for (const std::string& name : seen.devices("lustre.client")) {
    rows.push_back({"lustre " + name, "read " + seen.value("lustre.client", name, "read_bytes", 1e-9) + " GB",
                    "written " + seen.value("lustre.client", name, "write_bytes", 1e-9) + " GB"});
  }
  for (const std::string& mount : seen.devices("disk.space")) {
    rows.push_back({"disk " + mount, seen.value("disk.space", mount, "used_percent") + " % used",
                    seen.value("disk.space", mount, "read_only") == "1" ? "READ-ONLY AFTER AN ERROR" : ""});
  }
  for (const std::string& disk : seen.devices("nvme.disk"))
    rows.push_back({"nvme " + disk, seen.value("nvme.disk", disk, "state")});
  rows.push_back({"memory", seen.value("node.memory", "", "available_percent") + " % available"});
  if (seen.find("clock", "") != nullptr) {
    rows.push_back({"clock", seen.value("clock", "", "synchronized") == "1" ? "synchronized" : "NOT SYNCHRONIZED",
                    "offset " + seen.value("clock", "", "offset_seconds") + " s"});
  }
  out << "\n";
  print_table(rows, out);
  if (const Observation* versions = seen.find("versions", ""); versions != nullptr && !versions->text.empty())
    out << "versions that do not go together: " << versions->text << "\n";
}

// What the log tells, or why it can't be read.
Result<std::vector<Observation>> read_log(const std::string& source, const Boot& boot, Instant now) {
  if (source == "none") return std::vector<Observation>();
  std::unique_ptr<kernel_log::Source> from = kernel_log::syslog_source();
  if (source != "syslog") {
    const std::string path = source == "kmsg" ? "/dev/kmsg" : source;
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (descriptor < 0) return errno_error("opening the kernel log " + path, errno);
    from = kernel_log::descriptor_source(descriptor);
  }
  kernel_log::Reader reader(std::move(from), {boot.id, boot.time, Duration(0)}, {});
  return reader.poll(now);
}

}  // namespace

int look_once(const AgentConfig& config, const Clock& clock, std::ostream& out) {
  const HostPaths paths = config.host.empty() ? HostPaths{} : HostPaths::under(config.host);
  const std::string type = config.instance_type.empty() ? read_instance_type(paths) : config.instance_type;
  ProbeSettings settings;
  settings.paths = paths;
  settings.machine = machine_of(type);
  settings.nvml = config.nvml;
  settings.programs = config.programs;
  const auto boot = read_boot(paths);
  Ledger ledger(merge(builtin_policy(), config.policy), boot ? boot->id : "");
  GpuUsers users(paths);
  Seen seen;
  const auto take = [&](std::vector<Observation> observations, Instant now) {
    for (Observation& one : observations) {
      ledger.name(one);
      users.take(one);
      seen.take(one);
    }
    ledger.judge(observations, now);
  };

  ProbeRunner runner(probe_tasks(settings));
  Instant now = clock.now();
  for (int round = 0; round < 2; ++round) {
    runner.poll(now);
    runner.settle(kPatience);
    // Every probe is due again by then.
    now += hours(1);
    take(runner.poll(now - minutes(30)), now - minutes(30));
    if (round == 0) std::this_thread::sleep_for(std::chrono::seconds(1));
  }
  runner.settle(kPatience);
  Status log;
  size_t lines = 0;
  if (boot) {
    auto found = read_log(config.kernel_log, *boot, clock.now());
    if (found) {
      lines = found->size();
      take(*std::move(found), now);
    } else {
      log = found.error();
    }
  } else {
    log = boot.error();
  }

  out << "machine " << (type.empty() ? "of unknown type" : type)
      << (settings.machine.name.empty() ? " (not in the table: counts are not compared)" : "") << "\n";
  print_gpus(seen, users, out);
  print_efa(seen, out);
  print_rest(seen, out);
  out << "\nkernel log: ";
  if (log) {
    out << (lines == 1 ? "1 line means" : std::to_string(lines) + " lines mean") << " something\n";
  } else {
    out << log.error().message << "\n";
  }
  for (const auto& [name, probe] : seen.probes()) {
    if (probe.number("ok") != 1.0) out << "could not look: " << probe.text << "\n";
  }
  const auto& verdicts = ledger.verdicts();
  const Assessment assessment = assess(verdicts);
  out << "\n" << (assessment.healthy ? "no fault" : "FAULT: needs " + std::string(to_string(assessment.needs))) << "\n";
  for (const Verdict& verdict : verdicts) {
    out << "  " << to_string(verdict.severity) << "  " << verdict.rule
        << (verdict.device.empty() ? "" : " on " + verdict.device) << ": " << verdict.message << "\n";
  }
  return assessment.healthy ? 0 : 1;
}

}  // namespace pitcrew::agent
