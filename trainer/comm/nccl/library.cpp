#include "trainer/comm/nccl/library.hpp"

namespace pitcrew::trainer::nccl {

Result<std::shared_ptr<const Api>> load(const std::string& library) {
  const Demand demand{.oldest = kOldest,
                      .functions = {"ncclGetVersion", "ncclGetErrorString", "ncclGetLastError", "ncclGetUniqueId",
                                    "ncclCommInitRankConfig", "ncclCommFinalize", "ncclCommDestroy", "ncclCommAbort",
                                    "ncclCommGetAsyncError", "ncclGroupStart", "ncclGroupEnd", "ncclSend", "ncclRecv",
                                    "ncclAllGather", "ncclBroadcast", "ncclAllReduce", "ncclReduceScatter"},
                      .otherwise = "set comm.backend: tcp"};
  return pitcrew::nccl::load(demand, library);
}

}  // namespace pitcrew::trainer::nccl
