#include <fstream>
#include <set>
#include <sstream>

#include <gtest/gtest.h>

#include "agent/metrics/agent_metrics.hpp"
#include "agent/metrics/description.hpp"
#include "lib/net/metrics/metrics_endpoint.hpp"

namespace pitcrew::agent {
namespace {

Observation reading(const std::string& kind, const std::string& device, Instant time,
                    std::map<std::string, Value, std::less<>> values) {
  Observation observation;
  observation.kind = kind;
  observation.device = device;
  observation.values = std::move(values);
  observation.reading = true;
  observation.time = time;
  return observation;
}

Observation xid(uint32_t code, const std::string& device, Instant time) {
  Observation observation;
  observation.kind = kinds::kXid;
  observation.code = code;
  observation.device = device;
  observation.time = time;
  return observation;
}

class MetricsTest : public testing::Test {
 protected:
  MetricsTest() : metrics_(clock_) {
    metrics_.set_node("n1");
    metrics_.set_gpu("GPU-a", {3, "0000:b9:00.0", "NVIDIA H200", "580.65.06"});
  }
  std::string page() const { return net::metrics_text(*metrics_.registry()); }
  bool shows(const std::string& line) const { return page().find("\n" + line + "\n") != std::string::npos; }

  static constexpr char kLabels[] =
      "gpu=\"3\",UUID=\"GPU-a\",pci_bus_id=\"00000000:B9:00.0\",device=\"nvidia3\",modelName=\"NVIDIA H200\","
      "Hostname=\"n1\",DCGM_FI_DRIVER_VERSION=\"580.65.06\"";
  ManualClock clock_;
  AgentMetrics metrics_;
};

TEST_F(MetricsTest, a_gpu_is_called_as_dcgm_exporter_calls_it) {
  metrics_.observed(reading("gpu.temperature", "GPU-a", clock_.now(), {{"gpu", 41.0}}));
  metrics_.observed(
      reading("gpu.memory", "GPU-a", clock_.now(), {{"total", 1024.0 * (1 << 20)}, {"used", 24.0 * (1 << 20)}}));
  EXPECT_TRUE(shows("DCGM_FI_DEV_GPU_TEMP{" + std::string(kLabels) + "} 41")) << page();
  EXPECT_TRUE(shows("DCGM_FI_DEV_FB_FREE{" + std::string(kLabels) + "} 1000")) << page();
  metrics_.set_users({{"GPU-a", {"team-a", "llama-3", "train", "llama"}}});
  EXPECT_TRUE(shows("DCGM_FI_DEV_GPU_TEMP{" + std::string(kLabels) +
                    ",pod=\"llama-3\",namespace=\"team-a\",container=\"train\",job=\"llama\"} 41"))
      << page();
}

TEST_F(MetricsTest, xids_are_counted_by_code_and_the_last_one_is_shown_too) {
  for (const uint32_t code : {94u, 94u, 63u}) metrics_.observed(xid(code, "GPU-a", clock_.now()));
  EXPECT_TRUE(shows("pitcrew_gpu_xid_total{" + std::string(kLabels) + ",xid=\"94\"} 2")) << page();
  EXPECT_TRUE(shows("pitcrew_gpu_xid_total{" + std::string(kLabels) + ",xid=\"63\"} 1"));
  EXPECT_TRUE(shows("DCGM_FI_DEV_XID_ERRORS{" + std::string(kLabels) + ",err_code=\"63\"} 63"));
}

TEST_F(MetricsTest, a_missing_gpu_is_a_number_and_a_stale_reading_is_none) {
  metrics_.observed(reading("gpu.count", "", clock_.now(), {{"count", 7.0}, {"expected", 8.0}}));
  metrics_.observed(reading("efa.port", "rdmap0s29", clock_.now(), {{"rdma_read_bytes", 12.0}}));
  EXPECT_TRUE(shows("pitcrew_gpu_missing 1")) << page();
  EXPECT_TRUE(shows("pitcrew_efa_rdma_read_bytes_total{device=\"rdmap0s29\"} 12"));
  clock_.advance(minutes(6));
  EXPECT_EQ(page().find("pitcrew_gpu_missing"), std::string::npos);
}

TEST_F(MetricsTest, volumes_that_were_take_nobodys_place) {
  // Volumes of pods that come and go, for months.
  for (int i = 0; i < 6000; ++i) {
    clock_.advance(minutes(1));
    metrics_.observed(
        reading("disk.space", "/volumes/" + std::to_string(i), clock_.now(), {{"bytes", 1.0}, {"read_only", 0.0}}));
  }
  EXPECT_NE(page().find("/volumes/5999"), std::string::npos);
  EXPECT_EQ(page().find("/volumes/10\""), std::string::npos);
}

TEST_F(MetricsTest, verdicts_and_probes_are_shown) {
  Verdict verdict;
  verdict.rule = "xid-79";
  verdict.device = "GPU-a";
  verdict.severity = api::HealthSeverity::kFault;
  verdict.action = api::HealthAction::kReplace;
  metrics_.judged({{"xid-79", "GPU-a"}}, {verdict});
  Observation probe;
  probe.kind = kinds::kProbe;
  probe.values = {{"probe", "gpu.ecc"}, {"ok", 0.0}, {"seconds", 0.25}};
  metrics_.observed(probe);
  EXPECT_TRUE(shows("pitcrew_node_healthy 0"));
  EXPECT_TRUE(
      shows("pitcrew_verdict{" + std::string(kLabels) + ",rule=\"xid-79\",severity=\"Fault\",action=\"Replace\"} 1"))
      << page();
  EXPECT_TRUE(shows("pitcrew_rule_matches_total{rule=\"xid-79\"} 1"));
  EXPECT_TRUE(shows("pitcrew_probe_up{probe=\"gpu.ecc\"} 0"));
  EXPECT_TRUE(shows("pitcrew_probe_failures_total{probe=\"gpu.ecc\"} 1"));
}

TEST(MetricRows, each_has_one_name_of_the_usual_form) {
  std::set<std::string_view> names;
  for (const MetricRow& row : metric_rows()) {
    EXPECT_TRUE(names.insert(row.name).second) << row.name;
    EXPECT_FALSE(row.help.empty()) << row.name;
    if (row.name.starts_with("DCGM_FI_")) continue;
    EXPECT_TRUE(row.name.starts_with("pitcrew_")) << row.name;
    EXPECT_EQ(row.name.ends_with("_total"), row.type == MetricType::kCounter) << row.name;
  }
}

TEST(MetricRows, the_page_is_made_of_them) {
  std::ifstream file(std::string(PITCREW_SOURCE_DIR) + "/docs/agent-metrics.md");
  std::stringstream page;
  page << file.rdbuf();
  EXPECT_EQ(page.str(), metrics_page()) << "write it anew: scripts/generate";
}

}  // namespace
}  // namespace pitcrew::agent
