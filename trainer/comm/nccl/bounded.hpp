#pragma once

#include <functional>

#include "lib/base/time.hpp"

namespace pitcrew::trainer::nccl {

// Runs a call that may never return, on a thread of its own, and waits for it at most `limit`. False: it has not come
// back; its thread is left to itself, so `work` owns all that it touches. Only for calls of libraries that are known to
// hang (ncclCommFinalize, ncclCommDestroy, ncclCommAbort), on the way to the process' end.
bool returns_within(Duration limit, std::function<void()> work);

}  // namespace pitcrew::trainer::nccl
