/* What libpitcrew_check_cuda.so offers: plain C, so that pitcrew-check runs, and says what is missing, where there is
 * neither CUDA nor a GPU. Every function returns 0, or a PITCREW_CHECK_ code with words in `error`. Bandwidths in bytes
 * a second. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PITCREW_CHECK_ABI 1

enum {
  PITCREW_CHECK_UNAVAILABLE = 1, /* no driver, no memory, no NCCL: says nothing about the GPU */
  PITCREW_CHECK_BROKEN = 2,      /* the GPU stopped in the middle of it */
  PITCREW_CHECK_UNSUPPORTED = 3,
};

struct PitcrewCheckDevice {
  char uuid[48];
  char model[256];
  uint64_t memory;
};

struct PitcrewCheckMemory {
  uint64_t bytes, passes, wrong_words, first_wrong, flipped_bits;
  double copy_bandwidth;
};

struct PitcrewCheckHost {
  double to_device, from_device;
  uint64_t wrong_bytes;
};

struct PitcrewCheckCollective {
  double bus_bandwidth;
  uint64_t wrong_elements;
};

int pitcrew_check_abi(void);
int pitcrew_check_count(int* count, char* error, size_t length);
int pitcrew_check_device(int device, struct PitcrewCheckDevice* out, char* error, size_t length);
int pitcrew_check_memory(int device, double share, double seconds, uint64_t seed, struct PitcrewCheckMemory* out,
                         char* error, size_t length);
/* At most `most` digests, of the first repetitions; `count` is how many are there. */
int pitcrew_check_burn(int device, double seconds, uint64_t seed, uint64_t* digests, size_t most, size_t* count,
                       double* flops, char* error, size_t length);
int pitcrew_check_host(int device, double seconds, uint64_t seed, struct PitcrewCheckHost* out, char* error,
                       size_t length);
int pitcrew_check_all_reduce(int devices, double seconds, uint64_t seed, struct PitcrewCheckCollective* out,
                             char* error, size_t length);

#ifdef __cplusplus
}
#endif
