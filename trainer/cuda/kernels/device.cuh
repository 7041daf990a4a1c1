#pragma once

// What kernels stand on: packs of BF16 values, sums over warps and blocks, asynchronous copies, the tensor cores'
// product and the launch. Compiled by nvcc for GPUs; with PITCREW_CUDA_EMULATION by any compiler, for kernels whose
// threads are fibers of the CPU (emulation/emulation.hpp): slow, and checked like every other test.
#include <cstddef>
#include <cstdint>

#include "trainer/tensor/precision.hpp"

#if defined(PITCREW_CUDA_EMULATION)
#include "trainer/cuda/emulation/emulation.hpp"
#else
#include "trainer/cuda/kernels/hardware.cuh"
#endif

namespace pitcrew::trainer::cuda {

inline constexpr unsigned kWarp = 32;
// BF16 values that one 16-byte access moves.
inline constexpr int kPack = 8;

struct alignas(16) Words4 {
  uint32_t at[4];
};

__device__ __forceinline__ float low_half(uint32_t word) { return bits_to_float(word << 16); }
__device__ __forceinline__ float high_half(uint32_t word) { return bits_to_float(word & 0xffff0000u); }
__device__ __forceinline__ float to_float(BF16 value) { return bits_to_float(uint32_t{value.bits} << 16); }
// A value as it will be stored.
__device__ __forceinline__ float rounded(float value) { return low_half(pack_bf16(value, 0.0f)); }

// split_master() and join_master() of tensor/precision.hpp: the weight in the upper half, the remainder in the lower.
__device__ __forceinline__ uint32_t split_halves(float master) {
  const uint32_t word = float_to_bits(master);
  if ((word & 0x7fffffffu) > 0x7f800000u) return (word & 0x80000000u) | 0x7fc00000u;
  return ((word + 0x8000u) & 0xffff0000u) | (word & 0xffffu);
}
__device__ __forceinline__ float join_halves(uint32_t weight, uint32_t remainder) {
  return bits_to_float((weight - (remainder >> 15)) << 16 | remainder);
}

// N is kPack, 16-byte aligned, or 1.
template <int N>
__device__ __forceinline__ void load_masters(float (&to)[N], const BF16* weights, const uint16_t* remainders) {
  if constexpr (N == kPack) {
    const Words4 upper = *reinterpret_cast<const Words4*>(weights),
                 lower = *reinterpret_cast<const Words4*>(remainders);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      to[2 * i] = join_halves(upper.at[i] & 0xffffu, lower.at[i] & 0xffffu);
      to[2 * i + 1] = join_halves(upper.at[i] >> 16, lower.at[i] >> 16);
    }
  } else {
    to[0] = join_halves(weights->bits, *remainders);
  }
}
// `remainders` may be null.
template <int N>
__device__ __forceinline__ void store_masters(BF16* weights, uint16_t* remainders, const float (&from)[N]) {
  if constexpr (N == kPack) {
    Words4 upper, lower;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t a = split_halves(from[2 * i]), b = split_halves(from[2 * i + 1]);
      upper.at[i] = a >> 16 | (b & 0xffff0000u);
      lower.at[i] = (a & 0xffffu) | b << 16;
    }
    *reinterpret_cast<Words4*>(weights) = upper;
    if (remainders != nullptr) *reinterpret_cast<Words4*>(remainders) = lower;
  } else {
    const uint32_t halves = split_halves(from[0]);
    weights->bits = static_cast<uint16_t>(halves >> 16);
    if (remainders != nullptr) *remainders = static_cast<uint16_t>(halves);
  }
}

template <int N>
__device__ __forceinline__ void load(float (&to)[N], const BF16* from) {
  if constexpr (N == kPack) {
    const Words4 words = *reinterpret_cast<const Words4*>(from);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      to[2 * i] = low_half(words.at[i]);
      to[2 * i + 1] = high_half(words.at[i]);
    }
  } else {
    to[0] = to_float(*from);
  }
}
template <int N>
__device__ __forceinline__ void store(BF16* to, const float (&from)[N]) {
  if constexpr (N == kPack) {
    Words4 words;
#pragma unroll
    for (int i = 0; i < 4; ++i) words.at[i] = pack_bf16(from[2 * i], from[2 * i + 1]);
    *reinterpret_cast<Words4*>(to) = words;
  } else {
    to->bits = static_cast<uint16_t>(pack_bf16(from[0], 0.0f));
  }
}
template <int N>
__device__ __forceinline__ void load(float (&to)[N], const float* from) {
  if constexpr (N == kPack) {
    const float4 a = reinterpret_cast<const float4*>(from)[0], b = reinterpret_cast<const float4*>(from)[1];
    to[0] = a.x, to[1] = a.y, to[2] = a.z, to[3] = a.w;
    to[4] = b.x, to[5] = b.y, to[6] = b.z, to[7] = b.w;
  } else {
    to[0] = *from;
  }
}
template <int N>
__device__ __forceinline__ void store(float* to, const float (&from)[N]) {
  if constexpr (N == kPack) {
    reinterpret_cast<float4*>(to)[0] = make_float4(from[0], from[1], from[2], from[3]);
    reinterpret_cast<float4*>(to)[1] = make_float4(from[4], from[5], from[6], from[7]);
  } else {
    *to = from[0];
  }
}

// The same sum in every lane, added in the same order whatever the machine does.
template <typename T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += shuffle_xor(value, step);
  return value;
}
__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value = fmaxf(value, shuffle_xor(value, step));
  return value;
}

// The sum over a block of whole warps, in every thread. `scratch`: shared, one for each warp; free again when all have
// returned and met.
template <typename T>
__device__ __forceinline__ T block_sum(T value, T* scratch) {
  value = warp_sum(value);
  const unsigned warps = blockDim.x / kWarp;
  __syncthreads();
  if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = value;
  __syncthreads();
  T sum = scratch[0];
  for (unsigned i = 1; i < warps; ++i) sum += scratch[i];
  return sum;
}

__device__ __forceinline__ size_t global_thread() { return size_t{blockIdx.x} * blockDim.x + threadIdx.x; }

inline size_t ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }
// Whether rows of `width` elements can be read in packs.
inline bool packed(size_t width) { return width % kPack == 0; }
template <typename... Pointers>
bool packed(size_t width, const Pointers*... pointers) {
  return packed(width) && ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

}  // namespace pitcrew::trainer::cuda
