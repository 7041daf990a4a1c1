#include "operator/execute/capacity.hpp"

#include <gtest/gtest.h>

namespace pitcrew::control {
namespace {

kube::Pod pod_on(const std::string& node, int64_t cpu) {
  kube::Pod pod;
  pod.node_name = node;
  pod.requests = {{"cpu", cpu}};
  return pod;
}

TEST(Capacity, of_nodes_that_were_nothing_is_kept) {
  Capacity capacity;
  for (int i = 0; i < 1000; ++i) {
    const kube::Pod first = pod_on("ip-10-0-0-" + std::to_string(i), 1000);
    const kube::Pod second = pod_on(first.node_name, 3000);
    capacity.pod_added(first);
    capacity.pod_added(second);
    capacity.pod_removed(first);
    EXPECT_EQ(capacity.in_use(), 1u);
    capacity.pod_removed(second);
  }
  EXPECT_EQ(capacity.in_use(), 0u);
}

}  // namespace
}  // namespace pitcrew::control
