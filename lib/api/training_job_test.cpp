#include "lib/api/training_job.hpp"

#include <gtest/gtest.h>

#include "lib/base/yaml.hpp"

namespace pitcrew::api {
namespace {

constexpr char kWhole[] = R"(
apiVersion: pitcrew.dev/v1alpha1
kind: TrainingJob
metadata: {name: llama-8b, namespace: team-a}
spec:
  replicas: 8
  spares: 1
  processesPerReplica: 8
  container: train
  template:
    metadata: {labels: {team: a}}
    spec:
      someFieldOfTomorrow: {kept: [1, 2.5, null, "x"]}
      containers:
        - {name: helper, image: h}
        - name: train
          image: i
          command: [python, train.py]
          volumeMounts: [{name: fsx, mountPath: /checkpoints}]
      volumes: [{name: fsx, persistentVolumeClaim: {claimName: fsx}}]
  checkpoint:
    path: /checkpoints/llama-8b
    every: {steps: 500}
    memory: {every: {steps: 20}, copies: 1, size: 16Gi}
    keep: 5
  recovery:
    limit: {restarts: 9, window: 3h}
    inPlace: {limit: 2, window: 30m}
    waitInPlace: 5m
    avoidNodes: {afterFailures: 3, limit: 2}
    rules:
      - {match: {exitCodes: [3]}, action: Fail}
      - {match: {log: "illegal memory access"}, action: Restart}
  monitoring:
    progress: {stallAfter: 45s, startWithin: 12m, slowBelow: 60%}
  placement:
    capacity: {mode: Provision}
    gangTimeout: 20m
    priorityClassName: research
  lifecycle: {suspend: true, activeDeadline: 72h, startDeadline: 30m, warnBefore: 10m, ttlAfterFinished: 24h}
)";

TrainingJob decode_yaml(const std::string& text, Problems& problems) {
  const auto documents = parse_yaml(text);
  if (!documents || documents->empty()) {
    ADD_FAILURE() << (documents ? "no document" : documents.error().message);
    return {};
  }
  TrainingJob job = decode_training_job((*documents)[0].json, problems);
  validate(job, problems);
  return job;
}

TEST(TrainingJob, every_field_of_the_spec_is_read) {
  Problems problems;
  const TrainingJob job = decode_yaml(kWhole, problems);
  EXPECT_EQ(problems, Problems{});
  const TrainingJobSpec& spec = job.spec;
  EXPECT_EQ(job.metadata.ns, "team-a");
  EXPECT_EQ(spec.replicas, 8u);
  EXPECT_EQ(spec.spares, 1u);
  EXPECT_EQ(spec.processes_per_replica, 8u);
  EXPECT_EQ(spec.container, "train");
  EXPECT_EQ(spec.checkpoint->every->steps, 500u);
  EXPECT_EQ(spec.checkpoint->memory->size, 16ull << 30);
  EXPECT_EQ(spec.checkpoint->keep, 5u);
  EXPECT_EQ(spec.placement.capacity, CapacityMode::kProvision);
  EXPECT_EQ(spec.recovery.restarts, (Limit{9, hours(3)}));
  EXPECT_EQ(spec.recovery.in_place, (Limit{2, minutes(30)}));
  EXPECT_EQ(spec.recovery.wait_in_place, minutes(5));
  EXPECT_EQ(spec.recovery.avoid_after_failures, 3u);
  EXPECT_EQ(spec.recovery.rules.size(), 2u);
  EXPECT_EQ(spec.recovery.rules[0].action, RuleAction::kFail);
  EXPECT_EQ(spec.monitoring.stall_after, seconds(45));
  EXPECT_DOUBLE_EQ(spec.monitoring.slow_below, 0.6);
  EXPECT_EQ(spec.placement.gang_timeout, minutes(20));
  EXPECT_TRUE(spec.lifecycle.suspend);
  EXPECT_EQ(spec.lifecycle.ttl_after_finished, hours(24));
}

TEST(TrainingJob, encoding_and_decoding_again_changes_nothing_and_the_template_survives_untouched) {
  Problems problems;
  TrainingJob job = decode_yaml(kWhole, problems);
  job.metadata.uid = "0b1c2d3e-0000-4000-8000-000000000001";
  job.metadata.creation_time = parse_rfc3339("2026-03-01T02:14:07Z").value_or({});
  TrainingJobStatus& status = job.status;
  const Instant time = *parse_rfc3339("2026-03-01T02:14:07.123456Z");
  status.phase = Phase::kRecovering;
  status.conditions = {{"Running", false, "NodeLoss", "node n1 is gone", 2, *parse_rfc3339("2026-03-01T02:14:07Z")}};
  status.epoch = {EpochNumber(7), Term(3), 29507, Step(1200), "memory", 6, time};
  status.epoch.replay = {Step(1201), Rank(3), "n2", "00d1", 16};
  status.slots = {{Slot(0), Serial(4), "uid", "n1", "10.0.0.1", Rank(0)}};
  status.pods = {{Serial(4), Slot(0), "n1"}, {Serial(5), std::nullopt, ""}};
  status.next_serial = Serial(6);
  status.progress = {Step(1210), 5000, 9680, 49000.5, 2.25, time, time};
  status.checkpoint = {Step(1000), time, "/c/step-1000-c6", 123, Step(1200), time};
  status.goodput = {100, 5, 2, 1, 0.5, 30};
  status.restarts = {3, 1, 1, 1};
  status.requests = {{"r1", "save", "Done", "saved step 1000", time}};
  status.recoveries = {{Cause::kNodeLoss, "silent for 5 s; slot 1 can't reach it", "n1", Rank(8), Rung::kSpareTaken, 7,
                        12, time, time, time, time, time, time}};
  status.failures = {{time, Cause::kRankCrash, Rung::kInPlace, "n2", "ValueError@12"}};
  status.avoided_nodes = {"n2"};
  status.marks = {{"incompleteSince", time}};
  const Json once = job.encode();
  const auto again = TrainingJob::decode(once);
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(again->encode(), once);
  EXPECT_EQ(*again, job);
  EXPECT_EQ(once["spec"]["template"]["spec"]["someFieldOfTomorrow"], Json::parse(R"({"kept":[1,2.5,null,"x"]})"));
}

TEST(TrainingJob, the_goodput_that_kubectl_shows_has_four_digits) {
  TrainingJob job;
  job.status.goodput.training = 2;
  job.status.goodput.starting = 1;
  EXPECT_EQ(job.encode()["status"]["goodput"]["ratio"].dump(), "0.6667");
}

TEST(TrainingJob, checkpoints_may_lie_in_a_bucket_and_be_saved_as_often_as_loses_least) {
  std::string text = kWhole;
  text.replace(text.find("/checkpoints/llama-8b"), 21, "s3://bucket/llama-8b");
  text.replace(text.find("{steps: 500}"), 12, "{auto: true}");
  Problems problems;
  const TrainingJob job = decode_yaml(text, problems);
  EXPECT_EQ(problems, Problems{});
  EXPECT_EQ(job.spec.checkpoint->path, "s3://bucket/llama-8b");
  EXPECT_TRUE(job.spec.checkpoint->every->automatic);
  EXPECT_EQ(job.encode()["spec"]["checkpoint"]["every"], (Json{{"auto", true}}));
}

TEST(TrainingJob, the_first_container_trains_where_none_is_named) {
  std::string text = kWhole;
  text.replace(text.find("  container: train\n"), 19, "");
  Problems problems;
  EXPECT_EQ(decode_yaml(text, problems).spec.container, "helper");
}

TEST(TrainingJob, pods_are_named_by_job_uid_and_serial) {
  TrainingJob job;
  job.metadata.name = "llama";
  job.metadata.uid = "0b1c2d3e-1111";
  EXPECT_EQ(pod_name(job, Serial(12)), "llama-0b1c2-12");
}

TEST(TrainingJob, what_is_immutable_says_so) {
  Problems problems;
  const TrainingJob before = decode_yaml(kWhole, problems);
  TrainingJob after = before;
  after.spec.pod_template["spec"]["containers"][1]["image"] = "j";
  after.spec.checkpoint->path = "/checkpoints/other";
  after.spec.processes_per_replica = 4;
  after.spec.replicas = 4;
  validate_update(before, after, problems);
  EXPECT_EQ(problems.size(), 3u) << join(problems);  // replicas may change: the job is suspended
  TrainingJob running = before;
  running.spec.lifecycle.suspend = false;
  TrainingJob resized = running;
  resized.spec.replicas = 4;
  problems.clear();
  validate_update(running, resized, problems);
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_EQ(problems[0].path, "spec.replicas");
}

}  // namespace
}  // namespace pitcrew::api
