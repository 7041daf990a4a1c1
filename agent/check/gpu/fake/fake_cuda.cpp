// A libpitcrew_check_cuda.so for tests, with PITCREW_FAKE_GPUS devices (default 2). PITCREW_FAKE_GPU_FAULT names what
// goes wrong: memory, burn, broken (device 1 each), none (no GPU).
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "agent/check/cuda/abi.h"

namespace {

bool fault(std::string_view name) {
  const char* set = std::getenv("PITCREW_FAKE_GPU_FAULT");
  return set != nullptr && name == set;
}

int say(int code, const char* words, char* error, size_t length) {
  std::snprintf(error, length, "%s", words);
  return code;
}

}  // namespace

extern "C" {

int pitcrew_check_abi(void) { return PITCREW_CHECK_ABI; }

int pitcrew_check_count(int* count, char* error, size_t length) {
  if (fault("none")) return say(PITCREW_CHECK_UNAVAILABLE, "no CUDA-capable device is detected", error, length);
  const char* set = std::getenv("PITCREW_FAKE_GPUS");
  *count = set == nullptr ? 2 : std::atoi(set);
  return 0;
}

int pitcrew_check_device(int device, PitcrewCheckDevice* out, char*, size_t) {
  std::snprintf(out->uuid, sizeof out->uuid, "GPU-fake-%d", device);
  std::snprintf(out->model, sizeof out->model, "NVIDIA H200");
  out->memory = uint64_t{141} << 30;
  return 0;
}

int pitcrew_check_memory(int device, double, double, uint64_t, PitcrewCheckMemory* out, char* error, size_t length) {
  if (device == 1 && fault("broken")) return say(PITCREW_CHECK_BROKEN, "an uncorrectable ECC error", error, length);
  *out = {uint64_t{120} << 30, 4, 0, 0, 0, 4.3e12};
  if (device == 1 && fault("memory")) out->wrong_words = 1, out->first_wrong = 4096, out->flipped_bits = 1;
  return 0;
}

int pitcrew_check_burn(int device, double, uint64_t seed, uint64_t* digests, size_t most, size_t* count, double* flops,
                       char*, size_t) {
  *count = std::min<size_t>(most, 8);
  std::fill_n(digests, *count, seed * 31 + 1);
  if (device == 1 && fault("burn")) digests[3] ^= 1;
  *flops = 770e12;
  return 0;
}

int pitcrew_check_host(int, double, uint64_t, PitcrewCheckHost* out, char*, size_t) {
  *out = {55e9, 55e9, 0};
  return 0;
}

int pitcrew_check_all_reduce(int, double, uint64_t, PitcrewCheckCollective* out, char*, size_t) {
  *out = {520e9, 0};
  return 0;
}

}  // extern "C"
