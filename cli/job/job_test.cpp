#include <gtest/gtest.h>

#include "cli/job/status.hpp"
#include "cli/job/timeline.hpp"

namespace pitcrew::cli {
namespace {

const Instant kNow = *parse_rfc3339("2026-03-02T02:14:07Z");

api::TrainingJob running_job() {
  api::TrainingJob job;
  job.metadata.name = "llama-8b";
  job.metadata.ns = "team-a";
  job.metadata.uid = "1f2e3d4c-0000";
  job.metadata.creation_time = kNow - hours(12);
  job.spec.replicas = 8;
  job.spec.spares = 1;
  job.spec.checkpoint = api::CheckpointSpec{.path = "/checkpoints/llama-8b"};
  auto& status = job.status;
  status.phase = api::Phase::kRunning;
  status.start_time = kNow - hours(11);
  status.observed_generation = 1;
  status.ready = 8;
  status.spare = 1;
  status.epoch.number = EpochNumber(7);
  status.epoch.term = Term(3);
  status.conditions = {{"Running", true, "Training", "epoch 7", 1, kNow - minutes(22)}};
  status.progress = {Step(12400), 50000, 0, 41234, 2.31041, kNow + hours(33), kNow - seconds(12)};
  status.checkpoint.durable_step = Step(12000);
  status.checkpoint.durable_time = kNow - minutes(4);
  status.checkpoint.durable_bytes = 96'000'000'000;
  status.checkpoint.memory_step = Step(12380);
  status.checkpoint.memory_time = kNow - seconds(9);
  status.goodput = {38000, 120, 240, 360, 600, 180};
  status.restarts = {4, 2, 1, 1};
  api::Recovery recovery;
  recovery.cause = api::Cause::kNodeLoss;
  recovery.node = "ip-10-0-3-7";
  recovery.rung = api::Rung::kSpareTaken;
  recovery.evidence = "node ip-10-0-3-7: its channel is silent since 01:52:01Z, and slot 0 cannot reach it";
  recovery.steps_lost = 20;
  recovery.happened = kNow - minutes(22);
  recovery.detected = *recovery.happened + milliseconds(5100);
  recovery.decided = *recovery.detected + milliseconds(100);
  recovery.ready = *recovery.decided + milliseconds(1400);
  recovery.restored = *recovery.ready + milliseconds(3000);
  recovery.first_step = *recovery.restored + milliseconds(2800);
  status.recoveries = {recovery};
  return job;
}

TEST(Status, fits_one_screen_of_80_columns_and_says_what_counts) {
  const std::string text = print_status(running_job(), kNow, {80, false}, false);
  EXPECT_EQ(text,
            "llama-8b in team-a: Running for 22m, started 11h ago\n"
            "\n"
            "  progress     step 12,400 of 50,000  █████░░░░░░░░░░░░░░░ 25%  done in 33h\n"
            "  pace         41.2k tokens/s, loss 2.3104  (as of 12s ago)\n"
            "  replicas     8 of 8 connected, 1 of 1 spare; epoch 7, term 3\n"
            "  checkpoints  durable step 12,000, 4m ago, 96.0 GB; in memory step 12,380, 9.0s\n"
            "               ago\n"
            "  goodput      97%  training 10h 33m · starting 2m · restoring 4m · stalled 6m ·\n"
            "               redone 10m · queued 3m\n"
            "  restarts     4 in all: 2 in place, 1 replaced, 1 recreated\n"
            "  went wrong   21m ago: NodeLoss on ip-10-0-3-7 → SpareTaken; training again\n"
            "               after 12s, 20 steps done again\n"
            "               node ip-10-0-3-7: its channel is silent since 01:52:01Z, and slot\n"
            "               0 cannot reach it\n");
}

TEST(Status, says_what_a_waiting_job_waits_for) {
  api::TrainingJob job = running_job();
  job.status.phase = api::Phase::kPending;
  job.status.conditions = {{"Admitted", false, "GangDoesNotFit", "the gang needs room for 9 pods, there is room for 7",
                            1, kNow - minutes(3)}};
  EXPECT_EQ(waiting_for(job), "GangDoesNotFit: the gang needs room for 9 pods, there is room for 7");
  EXPECT_NE(print_status(job, kNow, {120, false}, false).find("waits for"), std::string::npos);
  job.status.observed_generation = 0;
  job.status.conditions.clear();
  EXPECT_EQ(waiting_for(job), "no operator has looked at it yet");
}

TEST(Status, many_jobs_are_a_line_each) {
  const std::string text = print_jobs({running_job()}, kNow, {120, false}, true);
  EXPECT_EQ(text,
            "NAMESPACE  NAME      PHASE    READY    STEP  DONE  GOODPUT  RESTARTS  AGE  WHY\n"
            "team-a     llama-8b  Running    8/8  12,400   25%      97%         4  12h  \n");
}

TEST(Status, the_document_has_the_apis_names) {
  const Json document = status_document(running_job(), kNow);
  EXPECT_EQ(document["phase"], "Running");
  EXPECT_EQ(document["progress"]["step"], 12400);
  EXPECT_EQ(document["recoveries"][0]["rung"], "SpareTaken");
}

TEST(Timeline, shows_where_the_time_of_a_recovery_went) {
  EXPECT_EQ(phases_of(running_job().status.recoveries.front()),
            "5.1s unnoticed · 0.1s deciding · 1.4s getting ready · 3.0s restoring · 2.8s first step");
}

TEST(Timeline, is_in_order_and_tells_each_thing_once) {
  Facts facts;
  facts.now = kNow;
  facts.job = running_job();
  facts.events = {{kNow - minutes(21), "TrainingJob/llama-8b", "Warning", "NodeLoss",
                   facts.job.status.recoveries.front().evidence, 1},
                  {kNow - minutes(20), "Pod/llama-8b-1f2e3-9", "Normal", "Pulled", "Container image", 2}};
  std::vector<std::string> seen;
  for (const Moment& moment : timeline_of(facts)) seen.push_back(moment.text);
  EXPECT_EQ(seen,
            (std::vector<std::string>{"created", "started", "NodeLoss on ip-10-0-3-7 → SpareTaken",
                                      "Pulled llama-8b-1f2e3-9 (2 times)", "newest durable checkpoint: step 12,000"}));
}

}  // namespace
}  // namespace pitcrew::cli
