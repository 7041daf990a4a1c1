#include "operator/app/metrics.hpp"

#include <gtest/gtest.h>

#include "lib/net/metrics/metrics_endpoint.hpp"

namespace pitcrew::control {
namespace {

TEST(OperatorMetrics, a_recovery_is_told_with_its_seconds_by_cause_and_rung) {
  OperatorMetrics metrics;
  api::Recovery recovery;
  recovery.cause = api::Cause::kNodeLoss;
  recovery.rung = api::Rung::kSpareTaken;
  recovery.happened = Instant(seconds(100));
  recovery.detected = Instant(seconds(104));
  recovery.first_step = Instant(seconds(106));
  recovery.steps_lost = 7;
  recovery.node = "n1";
  api::TrainingJob job;
  job.spec.replicas = 2;
  const Json container{{"resources", {{"limits", {{"nvidia.com/gpu", 8}}}}}};
  job.spec.pod_template = {{"spec", {{"containers", Json::array({container})}}}};
  metrics.recovered(job, recovery);
  recovery.first_step.reset();
  metrics.recovered(job, recovery);
  const std::string text = net::metrics_text(*metrics.registry());
  EXPECT_NE(text.find("pitcrew_recovery_seconds_sum{cause=\"NodeLoss\",rung=\"SpareTaken\"} 6"), std::string::npos)
      << text;
  EXPECT_NE(text.find("pitcrew_recovery_seconds_count{cause=\"NodeLoss\",rung=\"SpareTaken\"} 1"), std::string::npos);
  EXPECT_NE(text.find("pitcrew_recovery_phase_seconds_total{cause=\"NodeLoss\",phase=\"unnoticed\"} 4"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("pitcrew_recovery_phase_seconds_total{cause=\"NodeLoss\",phase=\"first_step\"} 2"),
            std::string::npos);
  EXPECT_NE(text.find("pitcrew_recovery_steps_lost_total{cause=\"NodeLoss\"} 7"), std::string::npos);
  EXPECT_NE(text.find("pitcrew_recovery_gpu_seconds_total{cause=\"NodeLoss\"} 96"), std::string::npos)
      << "6 s of 16 GPUs in: " << text;
  EXPECT_NE(text.find("pitcrew_recoveries_by_node_total{node=\"n1\"} 2"), std::string::npos);
  EXPECT_NE(text.find("pitcrew_recoveries_failed_total{cause=\"NodeLoss\"} 1"), std::string::npos);
}

TEST(OperatorMetrics, without_an_operator_it_says_that_nobody_leads) {
  OperatorMetrics metrics;
  metrics.count("pitcrew_reconciles_total", 2);
  const std::string text = net::metrics_text(*metrics.registry());
  EXPECT_NE(text.find("leader_election_master_status{name=\"pitcrew-operator\"} 0"), std::string::npos);
  EXPECT_NE(text.find("pitcrew_reconciles_total 2"), std::string::npos);
}

}  // namespace
}  // namespace pitcrew::control
