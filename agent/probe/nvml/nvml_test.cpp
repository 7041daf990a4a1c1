#include <cstdlib>
#include <filesystem>

#include <gtest/gtest.h>

#include "agent/probe/nvml/probes.hpp"
#include "agent/probe/runner/runner.hpp"
#include "lib/base/testing/temp_folder.hpp"

namespace pitcrew::agent::nvml {
namespace {

namespace fs = std::filesystem;

const Instant kNow = Instant(seconds(1'700'000'000));

// A machine of one of the captures, whose GPUs break when a test says so.
class FakeMachine {
 public:
  explicit FakeMachine(const std::string& shape) {
    setenv("PITCREW_NVML_CAPTURE",
           (fs::path(PITCREW_SOURCE_DIR) / "agent/probe/nvml/captures" / (shape + ".yaml")).c_str(), 1);
    setenv("PITCREW_NVML_FAULTS", (folder_.path() + "/faults.yaml").c_str(), 1);
    inject("{}");
  }

  void inject(const std::string& faults) const {
    fs::rename(folder_.write("new.yaml", faults + "\n"), folder_.path() + "/faults.yaml");
  }
  std::shared_ptr<const Library> open() const {
    auto library = Library::open(PITCREW_FAKE_NVML);
    EXPECT_TRUE(library) << (library ? "" : library.error().message);
    return *library;
  }

 private:
  TempFolder folder_;
};

const GpuProbe& probe(std::string_view kind) {
  for (const GpuProbe& one : gpu_probes()) {
    if (one.kind == kind) return one;
  }
  ADD_FAILURE() << kind;
  return gpu_probes()[0];
}

// "name=value …" of the observation about a GPU; "-" where there is none.
std::string values(const Result<std::vector<Observation>>& seen, const std::string& gpu) {
  if (!seen) return seen.error().message;
  for (const Observation& one : *seen) {
    if (one.device != gpu) continue;
    std::string text;
    for (const auto& [name, value] : one.values) text += (text.empty() ? "" : " ") + name + "=" + to_string(value);
    return text;
  }
  return "-";
}

TEST(Nvml, is_absent_without_complaint_on_a_node_without_gpus) {
  const auto library = Library::open("libpitcrew-has-no-such-library.so.1");
  ASSERT_FALSE(library);
  EXPECT_EQ(library.error().code, Code::kNotFound);
}

TEST(Nvml, says_that_the_driver_is_missing_where_only_the_library_is_there) {
  const FakeMachine machine("p5");
  machine.inject("{driver: gone}");
  const auto library = Library::open(PITCREW_FAKE_NVML);
  ASSERT_FALSE(library);
  EXPECT_EQ(library.error().code, Code::kUnavailable);
  EXPECT_NE(library.error().message.find("driver is not loaded"), std::string::npos);
}

class EveryShape : public testing::TestWithParam<std::string> {};

TEST_P(EveryShape, gives_a_reading_of_every_kind_for_eight_gpus) {
  const FakeMachine machine(GetParam());
  const auto library = machine.open();
  EXPECT_EQ(*driver_version(*library), "580.65.06");
  const auto gpus = list_gpus(*library);
  ASSERT_TRUE(gpus);
  ASSERT_EQ(gpus->size(), 8u);
  EXPECT_EQ(gpus->front().uuid, "GPU-" + GetParam() + "-0");
  EXPECT_FALSE(gpus->front().serial.empty());
  for (const GpuProbe& one : gpu_probes()) {
    const auto seen = look(one, *library, {8, 0}, kNow);
    ASSERT_TRUE(seen) << one.kind;
    const bool has = one.kind != "gpu.pages" && (one.kind != "gpu.fabric" || GetParam() != "p4d");
    EXPECT_EQ(seen->size(), has ? 8u : 0u) << one.kind;
    for (const Observation& reading : *seen) EXPECT_TRUE(reading.reading);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, EveryShape, testing::Values("p4d", "p5", "p5en", "p6-b200"),
                         [](const auto& info) { return info.param == "p6-b200" ? "p6b200" : info.param; });

TEST(Nvml, reads_what_a_healthy_h200_says) {
  const FakeMachine machine("p5en");
  const auto library = machine.open();
  const std::string gpu = "GPU-p5en-6";
  EXPECT_EQ((*list_gpus(*library))[6].pci, "0000:b9:00.0");
  EXPECT_EQ(values(look(probe("gpu.nvlink"), *library, {8, 18}, kNow), gpu),
            "active=18 crc=0 expected=18 links=18 recoveries=0 replays=0");
  EXPECT_EQ(values(look(probe("gpu.pcie"), *library, {}, kNow), gpu),
            "generation=5 max_generation=5 max_width=16 replay_limit=30.72 replays=0 width=16");
  EXPECT_EQ(values(look(probe("gpu.fabric"), *library, {}, kNow), gpu),
            "access_timeout=0 degraded_bandwidth=0 incorrect_configuration=1 route_recovery=0 route_unhealthy=0 "
            "state=completed status=ok");
  EXPECT_EQ(values(look(probe("gpu.power"), *library, {}, kNow), gpu), "limit=700 readable=1 watts=70");
  EXPECT_EQ(values(look(probe("gpu.temperature"), *library, {}, kNow), gpu),
            "gpu=31 margin=56 shutdown=92 slowdown=87");
}

TEST(Nvml, sees_faults_that_come_while_it_runs) {
  const FakeMachine machine("p5");
  const auto library = machine.open();
  const std::string gpu = "GPU-p5-2";
  EXPECT_EQ(values(look(probe("gpu.rows"), *library, {}, kNow), gpu), "corrected=0 failed=0 pending=0 uncorrected=0");
  machine.inject(
      "{set: {2: {ecc_uncorrected: 3, rows_pending: 1, nvlinks_down: 2, throttle_reasons: 72, processes: 2}}, "
      "unset: {2: [power]}}");
  EXPECT_EQ(values(look(probe("gpu.rows"), *library, {}, kNow), gpu), "corrected=0 failed=0 pending=1 uncorrected=0");
  EXPECT_EQ(values(look(probe("gpu.ecc"), *library, {}, kNow), gpu),
            "corrected=0 corrected_total=0 sram_threshold=0 uncorrected=3 uncorrected_total=0");
  EXPECT_EQ(values(look(probe("gpu.nvlink"), *library, {8, 18}, kNow), gpu).substr(0, 9), "active=16");
  EXPECT_EQ(values(look(probe("gpu.throttle"), *library, {}, kNow), gpu),
            "hardware=1 power_brake=0 power_cap=0 reasons=72 thermal=1");
  EXPECT_EQ(values(look(probe("gpu.processes"), *library, {}, kNow), gpu), "count=2 pids=4242,4243");
  EXPECT_EQ(values(look(probe("gpu.power"), *library, {}, kNow), gpu), "limit=700 readable=0");
  EXPECT_EQ(values(look(probe("gpu.power"), *library, {}, kNow), "GPU-p5-3"), "limit=700 readable=1 watts=70");
}

TEST(Nvml, counts_a_gpu_that_vanished_and_names_one_that_is_lost) {
  const FakeMachine machine("p5");
  const auto library = machine.open();
  machine.inject("{missing: [7], lost: [3]}");
  const auto seen = look_at_gpus(*library, {8, 18}, kNow);
  EXPECT_EQ(values(seen, ""), "count=7 expected=8");
  EXPECT_EQ(values(seen, "GPU-p5-3"), "lost=1");
  EXPECT_EQ(values(seen, "GPU-p5-4"), "lost=0");
  EXPECT_EQ(values(seen, "GPU-p5-7"), "-");
  const auto ecc = look(probe("gpu.ecc"), *library, {}, kNow);
  ASSERT_TRUE(ecc) << "a lost GPU is no broken probe";
  EXPECT_EQ(values(ecc, "GPU-p5-3"), "-");
  EXPECT_NE(values(ecc, "GPU-p5-4"), "-");
}

TEST(Nvml, a_driver_that_is_replaced_is_a_broken_probe_and_no_missing_gpu) {
  const FakeMachine machine("p5");
  const auto library = machine.open();
  for (const char* fault : {"{driver: gone}", "{driver: mismatch}"}) {
    machine.inject(fault);
    EXPECT_FALSE(look_at_gpus(*library, {8, 18}, kNow));
    EXPECT_FALSE(look(probe("gpu.ecc"), *library, {}, kNow));
  }
  machine.inject("{}");
  EXPECT_EQ(values(look_at_gpus(*library, {8, 18}, kNow), ""), "count=8 expected=8");
}

TEST(Nvml, an_error_of_one_value_is_the_probes_and_names_the_gpu) {
  const FakeMachine machine("p5");
  const auto library = machine.open();
  machine.inject("{error: {5: {rows: 999}}}");
  const auto seen = look(probe("gpu.rows"), *library, {}, kNow);
  ASSERT_FALSE(seen);
  EXPECT_EQ(seen.error().message, "GPU-p5-5: rows: error (NVML 999)");
}

TEST(Nvml, a_call_that_hangs_stops_its_own_probe_alone) {
  const FakeMachine machine("p5");
  const auto library = machine.open();
  machine.inject("{hang: [temperature]}");
  std::vector<ProbeTask> tasks;
  for (const std::string_view kind : {"gpu.temperature", "gpu.ecc"}) {
    const GpuProbe& one = probe(kind);
    tasks.push_back({std::string(kind), one.every, one.limit,
                     [&one, library](Instant now) { return look(one, *library, {}, now); }});
  }
  ProbeRunner runner(std::move(tasks));
  runner.poll(kNow);
  size_t ecc = 0;
  while (ecc == 0) {
    for (const Observation& one : runner.poll(kNow + seconds(1))) ecc += one.kind == "gpu.ecc";
  }
  EXPECT_EQ(ecc, 8u);
  const auto late = runner.poll(kNow + seconds(6));
  ASSERT_EQ(late.size(), 1u);
  EXPECT_EQ(late[0].text, "gpu.temperature: no answer within 5s");
  machine.inject("{}");
  ASSERT_TRUE(runner.settle(seconds(60)));
  EXPECT_EQ(runner.poll(kNow + seconds(7)).size(), 9u) << "eight readings and a word about the probe";
}

}  // namespace
}  // namespace pitcrew::agent::nvml
