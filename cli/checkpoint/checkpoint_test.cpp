#include "cli/checkpoint/checkpoint.hpp"

#include <sstream>

#include <gtest/gtest.h>

#include "lib/base/testing/temp_folder.hpp"

namespace pitcrew::cli {
namespace {

api::TrainingJob job() {
  Problems problems;
  return api::decode_training_job(
      {{"metadata", {{"name", "llama"}, {"namespace", "team-a"}, {"uid", "u-1"}}},
       {"spec",
        {{"checkpoint", {{"path", "/checkpoints/llama"}}},
         {"template",
          {{"spec",
            {{"containers",
              {{{"name", "train"},
                {"command", {"x"}},
                {"resources", {{"limits", {{"nvidia.com/gpu", 8}}}}},
                {"volumeMounts", {{{"name", "shared"}, {"mountPath", "/checkpoints"}}}}}}},
             {"serviceAccountName", "train"},
             {"volumes", {{{"name", "shared"}, {"persistentVolumeClaim", {{"claimName", "shared"}}}}}}}}}}}}},
      problems);
}

TEST(CheckpointPod, has_the_jobs_volumes_and_no_gpus) {
  const Json pod = look_pod(job(), "llama-look-1", {.verify = true, .image = "trainer:1"});
  const Json& container = pod["spec"]["containers"][0];
  EXPECT_EQ(container["command"], Json({"pitcrew-train", "checkpoints", "/checkpoints/llama", "--verify"}));
  EXPECT_EQ(container["volumeMounts"][0]["mountPath"], "/checkpoints");
  EXPECT_EQ(pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"], "shared");
  EXPECT_EQ(pod["spec"]["serviceAccountName"], "train");
  EXPECT_EQ(pod["spec"]["restartPolicy"], "Never");
  EXPECT_FALSE(container["resources"].contains("limits"));
  EXPECT_FALSE(pod["metadata"]["labels"].contains("pitcrew.dev/job"))
      << "the operator would take it for one of its own";
  EXPECT_EQ(pod["metadata"]["ownerReferences"][0]["uid"], "u-1");
}

TEST(CheckpointPod, has_the_environment_that_a_bucket_needs) {
  api::TrainingJob in_a_bucket = job();
  in_a_bucket.spec.checkpoint->path = "s3://bucket/llama";
  Json& training = in_a_bucket.spec.pod_template["spec"]["containers"][0];
  training["env"] = {{{"name", "AWS_REGION"}, {"value", "eu-west-1"}}};
  training["envFrom"] = {{{"secretRef", {{"name", "keys"}}}}};
  const Json pod = look_pod(in_a_bucket, "llama-look-1", {.image = "trainer:1"});
  const Json& container = pod["spec"]["containers"][0];
  EXPECT_EQ(container["command"], Json({"pitcrew-train", "checkpoints", "s3://bucket/llama"}));
  EXPECT_EQ(container["env"], training["env"]);
  EXPECT_EQ(container["envFrom"], training["envFrom"]);
  EXPECT_EQ(pod["spec"]["serviceAccountName"], "train");
}

TEST(CheckpointList, says_what_is_damaged) {
  const Json document = {{"path", "/c"},
                         {"verified", true},
                         {"checkpoints",
                          {{{"name", "step-000000000500-c7"},
                            {"step", 500},
                            {"claim", 7},
                            {"bytes", 96'000'000'000},
                            {"intact", true},
                            {"problem", ""}},
                           {{"name", "step-000000000400-c7"},
                            {"step", 400},
                            {"claim", 7},
                            {"bytes", 96'000'000'000},
                            {"intact", false},
                            {"problem", "shard-03: digest differs"}}}}};
  EXPECT_EQ(print_checkpoints(document, {100, false}),
            "/c: 2 checkpoints, every byte read\n"
            "\n"
            "CHECKPOINT            STEP  CLAIM     SIZE  STATE\n"
            "step-000000000500-c7   500      7  96.0 GB  intact\n"
            "step-000000000400-c7   400      7  96.0 GB  shard-03: digest differs\n");
}

TEST(CheckpointList, an_empty_folder_of_this_machine_has_none_and_an_absent_one_is_an_error) {
  const TempFolder folder;
  EXPECT_TRUE(is_local(folder.path()));
  EXPECT_FALSE(is_local("llama-8b"));
  std::ostringstream out, err;
  EXPECT_EQ(look_locally(folder.path(), {}, Format::kText, {}, out, err), 0);
  EXPECT_NE(out.str().find("no checkpoints"), std::string::npos) << out.str();
  EXPECT_NE(look_locally(folder.path() + "/absent", {}, Format::kText, {}, out, err), 0);
  EXPECT_NE(err.str(), "");
}

}  // namespace
}  // namespace pitcrew::cli
