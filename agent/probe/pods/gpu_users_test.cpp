#include "agent/probe/pods/gpu_users.hpp"

#include <gtest/gtest.h>

#include "agent/probe/testing/fake_host.hpp"
#include "lib/api/training_job.hpp"

namespace pitcrew::agent {
namespace {

const std::string kId(64, 'a');
const std::string kOther = std::string(63, '0') + "b";

TEST(GpuUsers, a_container_is_found_in_every_form_of_control_group) {
  const std::string uid = "1b2c3d4e-0000-1111-2222-333344445555", under = "1b2c3d4e_0000_1111_2222_333344445555";
  for (const std::string& text :
       {"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + under + ".slice/cri-containerd-" + kId +
            ".scope\n",
        "0::/kubepods/besteffort/pod" + uid + "/" + kId + "\n",
        "0::/../../kubepods-pod" + under + ".slice/crio-" + kId + ".scope\n", "0::/../../pod" + uid + "/" + kId + "\n",
        "0::/../../../besteffort/pod" + uid + "/" + kId + "\n",
        "0::/kubepods.slice/kubepods-pod" + under + ".slice/cri-containerd-" + kId + ".scope/inner\n",
        "12:cpuset:/\n11:memory:/kubepods/burstable/pod" + uid + "/" + kId + "\n10:pids:/kubepods/burstable/pod" + uid +
            "/" + kId + "\n",
        "4:memory:/system.slice/containerd.service/kubepods-burstable-pod" + under + ".slice:cri-containerd:" + kId +
            "\n"}) {
    EXPECT_EQ(container_of_cgroup(text), kId) << text;
  }
  for (const std::string& text : {std::string("0::/user.slice/user-1000.slice\n"), std::string(), "0::/docker/" + kId,
                                  std::string("0::/kubepods/pod1/short"), std::string(300, 'f')}) {
    EXPECT_EQ(container_of_cgroup(text), std::nullopt) << text;
  }
}

TEST(GpuUsers, a_log_is_named_after_pod_namespace_container_and_id) {
  const auto found = container_of_log("llama-8b-12_team-a_train-" + kId + ".log");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->first, kId);
  EXPECT_EQ(found->second, (GpuUser{"team-a", "llama-8b-12", "train", "llama-8b"}));
  const auto job = [](const std::string& pod) {
    return container_of_log(pod + "_team-a_main-" + kId + ".log")->second.job;
  };
  EXPECT_EQ(job("notebook"), "notebook");
  api::TrainingJob training;
  training.metadata.name = "llama-8b";
  training.metadata.uid = "0b1c2d3e-0000-1111-2222-333344445555";
  EXPECT_EQ(job(api::pod_name(training, Serial(12))), "llama-8b") << "as Prometheus calls the job elsewhere";
  EXPECT_EQ(job("web-0b1c2"), "web-0b1c2");
  EXPECT_EQ(job("0b1c2-1"), "0b1c2");
  for (const std::string& name : {"x_y-" + kId + ".log", "a_b_c-" + kId, std::string("a_b_c-123.log"), kId + ".log"}) {
    EXPECT_FALSE(container_of_log(name)) << name;
  }
}

TEST(GpuUsers, a_gpu_has_the_pod_of_its_processes_until_others_come) {
  const FakeHost host;
  host.file("proc/41/cgroup", "0::/user.slice");
  host.file("proc/42/cgroup", "0::/kubepods/pod1/" + kId);
  host.file("proc/43/cgroup", "0::/kubepods/pod2/" + kOther);
  host.file("var/log/containers/llama-3_team-a_train-" + kId + ".log", "");
  GpuUsers users(host.paths());
  Observation reading;
  reading.kind = "gpu.processes";
  reading.device = "GPU-1";
  reading.values["pids"] = std::string("41,42");
  EXPECT_TRUE(users.take(reading));
  EXPECT_EQ(users.users().at("GPU-1"), (GpuUser{"team-a", "llama-3", "train", "llama"}));
  EXPECT_FALSE(users.take(reading));

  // A pod whose log isn't there yet is looked for again.
  reading.values["pids"] = std::string("43");
  EXPECT_TRUE(users.take(reading));
  EXPECT_EQ(users.users().at("GPU-1"), GpuUser());
  host.file("var/log/containers/bert-0_team-b_main-" + kOther + ".log", "");
  EXPECT_TRUE(users.take(reading));
  EXPECT_EQ(users.users().at("GPU-1").pod, "bert-0");

  reading.values.erase("pids");
  EXPECT_TRUE(users.take(reading));
  EXPECT_EQ(users.users().at("GPU-1"), GpuUser());
}

}  // namespace
}  // namespace pitcrew::agent
