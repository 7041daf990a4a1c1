#pragma once

#include <cstddef>

namespace pitcrew::check {

// The part of NCCL's binary interface that an all-reduce within one process needs, loaded where NCCL is: the rest of
// the check works without it. Names are NCCL's without their prefix; codes, types and operations are its numbers.
using NcclComm = void*;
struct NcclTable {
  int (*init_all)(NcclComm* comms, int count, const int* devices) = nullptr;
  int (*destroy)(NcclComm comm) = nullptr;
  int (*group_start)() = nullptr;
  int (*group_end)() = nullptr;
  int (*all_reduce)(const void* from, void* to, size_t count, int type, int operation, NcclComm comm,
                    void* stream) = nullptr;
  const char* (*error_string)(int code) = nullptr;
};

// Null where there is no libnccl.so.2, or one without these functions. Loaded once; any thread.
const NcclTable* load_nccl();

}  // namespace pitcrew::check
