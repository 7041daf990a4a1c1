#include "trainer/device/instructions.hpp"

#include <algorithm>
#include <cstdlib>
#include <string>

namespace pitcrew::trainer {

namespace {

Instructions best_of_machine() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma")) {
    return Instructions::kAvx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Instructions::kAvx2;
#endif
  return Instructions::kBaseline;
}

Instructions limit() {
  const char* asked = std::getenv("PITCREW_INSTRUCTIONS");
  if (asked == nullptr) return Instructions::kAvx512;
  if (std::string_view(asked) == "baseline") return Instructions::kBaseline;
  if (std::string_view(asked) == "avx2") return Instructions::kAvx2;
  return Instructions::kAvx512;
}

}  // namespace

std::string_view to_string(Instructions instructions) {
  switch (instructions) {
    case Instructions::kBaseline:
      return "baseline";
    case Instructions::kAvx2:
      return "avx2";
    case Instructions::kAvx512:
      return "avx512";
  }
  return "";
}

Instructions instructions() {
  static const Instructions chosen = std::min(best_of_machine(), limit());
  return chosen;
}

}  // namespace pitcrew::trainer
