#pragma once

#include "lib/base/result.hpp"

namespace pitcrew::cli {

// How every command that asks a cluster ends. docs/cli.md lists them.
inline constexpr int kExitDone = 0;
inline constexpr int kExitNo = 1;           // the answer is no: a cause was found, a checkpoint is damaged, refused
inline constexpr int kExitBadInput = 2;     // flags, files, kubeconfig
inline constexpr int kExitUnreachable = 3;  // the API server is away, or doesn't let us
inline constexpr int kExitNotFound = 4;     // there is no such job, node or rank
inline constexpr int kExitTooLate = 5;      // asked for, and not answered within --timeout

int exit_code_of(const Error& error);

}  // namespace pitcrew::cli
