#pragma once

#include <climits>
#include <cstddef>

// NCCL's C interface as far as it is used, declared here so that nothing needs nccl.h to compile (nccl.h 2.28.9, which
// abi_test.cpp compares it with where it is there). Its enums are ints here.
namespace pitcrew::nccl {

struct Communicator;  // ncclComm
using CommHandle = Communicator*;
using StreamHandle = void*;  // cudaStream_t

struct UniqueId {
  char internal[128];
};

enum ResultCode : int {
  kSuccess = 0,
  kUnhandledCudaError = 1,
  kSystemError = 2,
  kInternalError = 3,
  kInvalidArgument = 4,
  kInvalidUsage = 5,
  kRemoteError = 6,
  kInProgress = 7,
};

// ncclDataType_t, ncclRedOp_t.
constexpr int kUint8 = 1;
constexpr int kFloat32 = 7;
constexpr int kSum = 0;

constexpr int version_code(int major, int minor, int patch) { return major * 10000 + minor * 100 + patch; }

// ncclConfig_t as of 2.18, the oldest that is accepted. A newer library reads `size` and `version`, and takes its own
// defaults for what came later.
struct Config {
  size_t size = sizeof(Config);
  unsigned int magic = 0xcafebeef;
  unsigned int version = version_code(2, 18, 1);
  int blocking = INT_MIN;  // NCCL_CONFIG_UNDEF_INT
  int cga_cluster_size = INT_MIN;
  int min_ctas = INT_MIN;
  int max_ctas = INT_MIN;
  const char* net_name = nullptr;
  int split_share = INT_MIN;
};

// X(what it returns, its name without "nccl", its parameters). Where it returns an int, that is a ResultCode.
#define PITCREW_NCCL_FUNCTIONS(X)                                                                               \
  X(int, GetVersion, (int* version))                                                                            \
  X(const char*, GetErrorString, (int result))                                                                  \
  X(const char*, GetLastError, (CommHandle comm))                                                               \
  X(int, GetUniqueId, (UniqueId * id))                                                                          \
  X(int, CommInitAll, (CommHandle * comms, int count, const int* devices))                                      \
  X(int, CommInitRankConfig, (CommHandle * comm, int ranks, UniqueId id, int rank, Config* config))             \
  X(int, CommFinalize, (CommHandle comm))                                                                       \
  X(int, CommDestroy, (CommHandle comm))                                                                        \
  X(int, CommAbort, (CommHandle comm))                                                                          \
  X(int, CommGetAsyncError, (CommHandle comm, int* error))                                                      \
  X(int, GroupStart, ())                                                                                        \
  X(int, GroupEnd, ())                                                                                          \
  X(int, Send, (const void* data, size_t count, int type, int peer, CommHandle comm, StreamHandle stream))      \
  X(int, Recv, (void* data, size_t count, int type, int peer, CommHandle comm, StreamHandle stream))            \
  X(int, AllGather, (const void* from, void* to, size_t count, int type, CommHandle comm, StreamHandle stream)) \
  X(int, Broadcast,                                                                                             \
    (const void* from, void* to, size_t count, int type, int root, CommHandle comm, StreamHandle stream))       \
  X(int, AllReduce,                                                                                             \
    (const void* from, void* to, size_t count, int type, int op, CommHandle comm, StreamHandle stream))         \
  X(int, ReduceScatter,                                                                                         \
    (const void* from, void* to, size_t count, int type, int op, CommHandle comm, StreamHandle stream))

// The functions of a library that was loaded. Those that it lacks are null, unless they were demanded (library.hpp).
struct Api {
#define PITCREW_NCCL_MEMBER(result, name, parameters) result(*name) parameters = nullptr;
  PITCREW_NCCL_FUNCTIONS(PITCREW_NCCL_MEMBER)
#undef PITCREW_NCCL_MEMBER
  int version = 0;  // 22809: 2.28.9
};

}  // namespace pitcrew::nccl
