#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "agent/probe/host.hpp"
#include "agent/probe/observation.hpp"
#include "lib/base/testing/temp_folder.hpp"

namespace pitcrew::agent {

// A machine's procfs, sysfs and files as a test wants them, in a folder that is gone with it.
class FakeHost {
 public:
  HostPaths paths() const { return HostPaths::under(folder_.path()); }
  const std::string& folder() const { return folder_.path(); }

  // Makes or replaces a file, and the folders above it: file("sys/class/nvme/nvme0/state", "live").
  void file(const std::string& path, const std::string& content) const {
    folder_.make(std::filesystem::path(path).parent_path().string());
    folder_.write(path, content + "\n");
  }
  void remove(const std::string& path) const { std::filesystem::remove_all(folder_.path() + "/" + path); }

  // An EFA device with counters at 0, as the driver shows one: rdmap0s29.
  void efa_device(const std::string& name) const {
    const std::string at = "sys/class/infiniband/" + name;
    file(at + "/device/vendor", "0x1d0f");
    file(at + "/device/device", "0xefa2");
    for (const char* counter :
         {"tx_bytes", "rx_bytes", "rx_drops", "rdma_read_bytes", "rdma_write_bytes", "rdma_read_wr_err",
          "rdma_write_wr_err", "retrans_bytes", "retrans_pkts", "retrans_timeout_events", "unresponsive_remote_events",
          "impaired_remote_conn_events", "lifespan"}) {
      efa_counter(name, counter, 0);
    }
    for (const char* counter :
         {"submitted_cmds", "completed_cmds", "cmds_err", "no_completion_cmds", "keep_alive_rcvd"})
      file(at + "/hw_counters/" + counter, "0");
  }
  void efa_counter(const std::string& name, const std::string& counter, uint64_t value) const {
    file("sys/class/infiniband/" + name + "/ports/1/hw_counters/" + counter, std::to_string(value));
  }
  void efa_admin(const std::string& name, const std::string& counter, uint64_t value) const {
    file("sys/class/infiniband/" + name + "/hw_counters/" + counter, std::to_string(value));
  }

 private:
  TempFolder folder_;
};

// "name=value …" of the observation of a kind about a device; "-" where there is none.
inline std::string values_of(const Result<std::vector<Observation>>& seen, std::string_view kind,
                             std::string_view device = "") {
  if (!seen) return seen.error().message;
  for (const Observation& one : *seen) {
    if (one.kind != kind || one.device != device) continue;
    std::string text;
    for (const auto& [name, value] : one.values) text += (text.empty() ? "" : " ") + name + "=" + to_string(value);
    return text;
  }
  return "-";
}

}  // namespace pitcrew::agent
