#include "agent/probe/instance_types.hpp"

#include <gtest/gtest.h>

namespace pitcrew::agent {
namespace {

TEST(InstanceTypes, are_found_by_their_name) {
  const InstanceType* p5 = find_instance_type("p5.48xlarge");
  ASSERT_NE(p5, nullptr);
  EXPECT_EQ(p5->gpus, 8u);
  EXPECT_EQ(p5->efa_devices, 32u);
  EXPECT_EQ(p5->nvlinks, 18u);
  EXPECT_EQ(find_instance_type("p5en.48xlarge")->efa_devices, 16u);
  EXPECT_EQ(find_instance_type("m5.large"), nullptr) << "nothing is expected of a type that is not known";
  EXPECT_EQ(find_instance_type(""), nullptr);
}

TEST(InstanceTypes, each_has_gpus_and_a_source) {
  for (const InstanceType& type : instance_types()) {
    EXPECT_GT(type.gpus, 0u) << type.name;
    EXPECT_FALSE(type.source.empty()) << type.name;
    EXPECT_EQ(&type, find_instance_type(type.name)) << "a name is there twice: " << type.name;
  }
}

}  // namespace
}  // namespace pitcrew::agent
