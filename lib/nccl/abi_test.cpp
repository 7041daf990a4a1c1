// Our declarations beside NCCL's own, where its header is there (-DPITCREW_CUDA=ON, and nccl.h found).
#include "lib/nccl/abi.hpp"

#include <gtest/gtest.h>

#ifdef PITCREW_NCCL_HEADER
#include <nccl.h>

namespace pitcrew::nccl {
namespace {

static_assert(sizeof(UniqueId) == sizeof(ncclUniqueId));
static_assert(offsetof(Config, blocking) == offsetof(ncclConfig_t, blocking));
static_assert(offsetof(Config, cga_cluster_size) == offsetof(ncclConfig_t, cgaClusterSize));
static_assert(offsetof(Config, net_name) == offsetof(ncclConfig_t, netName));
static_assert(offsetof(Config, split_share) == offsetof(ncclConfig_t, splitShare));
static_assert(sizeof(Config) <= sizeof(ncclConfig_t));
static_assert(int{kUnhandledCudaError} == ncclUnhandledCudaError && int{kSystemError} == ncclSystemError &&
              int{kInternalError} == ncclInternalError && int{kInvalidArgument} == ncclInvalidArgument &&
              int{kInvalidUsage} == ncclInvalidUsage && int{kRemoteError} == ncclRemoteError &&
              int{kInProgress} == ncclInProgress);
static_assert(int{kUint8} == ncclUint8 && int{kFloat32} == ncclFloat32 && int{kSum} == ncclSum);

// As many parameters, each of the same size.
template <typename Ours, typename Theirs>
constexpr bool kAlike = false;
template <typename R, typename... A, typename S, typename... B>
  requires(sizeof...(A) == sizeof...(B))
constexpr bool kAlike<R (*)(A...), S (*)(B...)> = sizeof(R) == sizeof(S) && ((sizeof(A) == sizeof(B)) && ...);

#define ALIKE(result, name, parameters) static_assert(kAlike<decltype(Api::name), decltype(&nccl##name)>, #name);
PITCREW_NCCL_FUNCTIONS(ALIKE)
#undef ALIKE

TEST(NcclAbi, our_config_has_the_magic_and_leaves_the_rest_to_nccl) {
  const ncclConfig_t theirs = NCCL_CONFIG_INITIALIZER;
  const Config ours;
  EXPECT_EQ(ours.magic, theirs.magic);
  EXPECT_EQ(ours.blocking, theirs.blocking);
  EXPECT_EQ(ours.split_share, theirs.splitShare);
  EXPECT_LE(ours.version, theirs.version);
}

}  // namespace
}  // namespace pitcrew::nccl
#else
TEST(NcclAbi, our_config_has_the_magic_and_leaves_the_rest_to_nccl) { GTEST_SKIP() << "nccl.h is not here"; }
#endif
