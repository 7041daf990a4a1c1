#include "agent/check/cuda/nccl.hpp"

#include "lib/nccl/library.hpp"

namespace pitcrew::check {

const nccl::Api* load_nccl(std::string& why) {
  static const auto loaded = nccl::load({.functions = {"ncclCommInitAll", "ncclCommDestroy", "ncclGroupStart",
                                                       "ncclGroupEnd", "ncclAllReduce", "ncclGetErrorString"}});
  if (loaded) return loaded->get();
  why = loaded.error().message;
  return nullptr;
}

}  // namespace pitcrew::check
