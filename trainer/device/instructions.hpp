#pragma once

#include <string_view>

namespace pitcrew::trainer {

// The vector instructions that kernels are compiled for, weakest first.
enum class Instructions { kBaseline, kAvx2, kAvx512 };

std::string_view to_string(Instructions instructions);

// The best that this machine has, or what PITCREW_INSTRUCTIONS (baseline, avx2, avx512) asks for if that is less: the
// same on all calls of a process.
Instructions instructions();

}  // namespace pitcrew::trainer
