#include <cstdlib>
#include <filesystem>

#include <gtest/gtest.h>

#include "agent/probe/nvml/connection.hpp"
#include "agent/probe/nvml/gpm.hpp"
#include "agent/probe/nvml/probes.hpp"
#include "agent/probe/nvml/xid_events.hpp"
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

TEST(Activity, is_told_between_two_looks_where_the_gpu_measures_it) {
  const FakeMachine machine("p5");
  const auto library = machine.open();
  Activity activity;
  machine.inject("{set: {2: {gpm_2: 90, gpm_5: 42.5, gpm_60: 100}}}");
  const auto first = activity.look(library, kNow);
  ASSERT_TRUE(first);
  EXPECT_TRUE(first->empty()) << "one sample says nothing";
  EXPECT_EQ(values(activity.look(library, kNow + seconds(15)), "GPU-p5-2"),
            "dram=0 graphics=0 nvlink_rx=104857600 nvlink_tx=0 occupancy=0 pcie_rx=0 pcie_tx=0 sm=0.9 tensor=0.425");
}

TEST(Activity, is_not_told_by_gpus_that_cannot) {
  const FakeMachine machine("p4d");
  const auto library = machine.open();
  Activity activity;
  for (int look = 0; look < 2; ++look) {
    const auto seen = activity.look(library, kNow);
    ASSERT_TRUE(seen);
    EXPECT_TRUE(seen->empty());
  }
}

TEST(XidEvents, are_told_once_with_their_gpu) {
  const FakeMachine machine("p5");
  const auto library = machine.open();
  XidEvents events;
  EXPECT_TRUE(events.look(library, kNow)->empty());
  machine.inject("{xids: [{id: 1, gpu: 2, code: 79}, {id: 2, gpu: 5, code: 94}]}");
  const auto seen = events.look(library, kNow + seconds(1));
  ASSERT_TRUE(seen);
  ASSERT_EQ(seen->size(), 2u);
  EXPECT_EQ((*seen)[0].device, "GPU-p5-2");
  EXPECT_EQ((*seen)[0].code, 79u);
  EXPECT_EQ((*seen)[1].code, 94u);
  EXPECT_NE((*seen)[0].id, (*seen)[1].id);
  EXPECT_TRUE(events.look(library, kNow + seconds(2))->empty());
}

Observation xid(uint32_t code, const std::string& gpu, Instant time, bool by_nvml) {
  Observation event;
  event.kind = kinds::kXid;
  event.code = code;
  event.device = gpu;
  event.time = time;
  if (by_nvml) event.values["source"] = std::string("nvml");
  return event;
}

TEST(XidMerge, an_xid_of_both_sources_is_one_whichever_comes_first) {
  XidMerge merge;
  EXPECT_EQ(merge.take({xid(74, "A", kNow, false)}, kNow).size(), 1u);
  EXPECT_TRUE(merge.take({xid(74, "A", kNow + seconds(1), true)}, kNow + seconds(1)).empty());
  EXPECT_TRUE(merge.take({xid(79, "B", kNow + seconds(20), true)}, kNow + seconds(20)).empty());
  const auto late = merge.take({xid(79, "B", kNow + seconds(21), false)}, kNow + seconds(21));
  ASSERT_EQ(late.size(), 1u);
  EXPECT_EQ(late[0].word("source"), "") << "the log's, which has more in it";
  EXPECT_TRUE(merge.take({}, kNow + seconds(60)).empty());
  EXPECT_EQ(merge.wake(), std::nullopt);
}

TEST(XidMerge, nvml_speaks_where_the_log_is_silent_or_means_another_gpu) {
  XidMerge merge;
  const auto at_once = merge.take({xid(79, "A", kNow, true), xid(79, "B", kNow, false)}, kNow);
  ASSERT_EQ(at_once.size(), 1u);
  EXPECT_EQ(at_once[0].device, "B");
  EXPECT_EQ(merge.wake(), kNow + seconds(2));
  const auto later = merge.take({}, kNow + seconds(2));
  ASSERT_EQ(later.size(), 1u);
  EXPECT_EQ(later[0].device, "A");
}

TEST(Connection, is_quiet_without_a_library_unless_gpus_are_expected) {
  Connection idle({.path = "libpitcrew-has-no-such-library.so.1"});
  const auto none = idle.get(kNow);
  ASSERT_TRUE(none);
  EXPECT_EQ(*none, nullptr);
  Connection needed({.path = "libpitcrew-has-no-such-library.so.1", .needed = true});
  EXPECT_FALSE(needed.get(kNow));
}

TEST(Connection, opens_the_library_anew_when_its_driver_has_gone_and_come_back) {
  const FakeMachine machine("p5");
  Connection connection({.path = PITCREW_FAKE_NVML, .needed = true});
  const auto first = *connection.get(kNow);
  ASSERT_NE(first, nullptr);
  connection.failed(first, Error(Code::kInternal, "one GPU's own error"));
  EXPECT_EQ(*connection.get(kNow), first);
  machine.inject("{driver: gone}");
  connection.failed(first, look_at_gpus(*first, {8, 18}, kNow).error());
  EXPECT_FALSE(connection.get(kNow + seconds(40)));
  machine.inject("{}");
  EXPECT_FALSE(connection.get(kNow + seconds(50))) << "not at every look";
  EXPECT_TRUE(connection.get(kNow + seconds(70)));
  EXPECT_EQ(connection.opened(), 2u);
}

}  // namespace
}  // namespace pitcrew::agent::nvml
