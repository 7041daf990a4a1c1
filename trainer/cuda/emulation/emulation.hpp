#pragma once

// The CPU's side of kernels/device.cuh: a kernel's threads as fibers, so that its index arithmetic, its barriers and
// its tensor core fragments run, and are checked, where there is no GPU. One block at a time; a fiber runs until it has
// to wait for its warp or its block. A block whose threads wait for one another for ever ends the process with its
// name.
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <tuple>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __constant__ const
#define __launch_bounds__(...)
#define threadIdx (::pitcrew::trainer::emulation::place().thread)
#define blockIdx (::pitcrew::trainer::emulation::place().block)
#define blockDim (::pitcrew::trainer::emulation::place().threads)
#define gridDim (::pitcrew::trainer::emulation::place().blocks)

struct CUstream_st;

struct float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace pitcrew::trainer::emulation {

struct Place {
  dim3 thread, block, threads, blocks;
};
const Place& place();

// Waits for all threads of the block that still run.
void block_barrier();
// Gives every lane of the warp what all 32 put in: `bytes` of each, at most 16, in their order. Valid until the lane's
// next exchange but one.
const std::byte* warp_exchange(const void* mine, size_t bytes);
// The block's dynamic shared memory.
std::byte* dynamic_memory();

void run_grid(dim3 grid, dim3 block, size_t shared, const std::function<void()>& kernel);

}  // namespace pitcrew::trainer::emulation

inline void __syncthreads() { ::pitcrew::trainer::emulation::block_barrier(); }
inline void __syncwarp() {
  const char nothing = 0;
  ::pitcrew::trainer::emulation::warp_exchange(&nothing, 1);
}

namespace pitcrew::trainer::cuda {

// Null: kernels run in their caller; whoever wants an order calls from a stream.
using Queue = CUstream_st*;

inline float bits_to_float(uint32_t bits) { return std::bit_cast<float>(bits); }
inline uint32_t float_to_bits(float value) { return std::bit_cast<uint32_t>(value); }
inline uint32_t pack_bf16(float low, float high) { return BF16(low).bits | uint32_t{BF16(high).bits} << 16; }
template <typename T>
T shuffle_xor(T value, int lanes) {
  const std::byte* all = emulation::warp_exchange(&value, sizeof value);
  T other;
  std::memcpy(&other, all + ((threadIdx.x % 32) ^ static_cast<unsigned>(lanes)) * sizeof(T), sizeof(T));
  return other;
}
inline float fast_exp(float x) { return std::exp(x); }
inline float fast_exp2(float x) { return std::exp2(x); }
inline float natural_log(float x) { return std::log(x); }
inline float inverse_root(float x) { return 1 / std::sqrt(x); }
inline uint64_t high_product(uint64_t a, uint64_t b) {
  __extension__ using Wide128 = unsigned __int128;
  return static_cast<uint64_t>((Wide128{a} * b) >> 64);
}

template <typename T>
T* dynamic_shared() {
  return reinterpret_cast<T*>(emulation::dynamic_memory());
}

inline void copy_async(void* shared, const void* global, bool valid) {
  if (valid) {
    std::memcpy(shared, global, 16);
  } else {
    std::memset(shared, 0, 16);
  }
}
inline void copy_async_commit() {}
template <int N>
void copy_async_wait() {}

void load_matrices(uint32_t (&to)[4], const void* row);
void load_matrices_transposed(uint32_t (&to)[4], const void* row);
void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, Queue, const Arguments&... arguments) {
  emulation::run_grid(grid, block, shared, [&] { kernel(static_cast<Parameters>(arguments)...); });
}

}  // namespace pitcrew::trainer::cuda
