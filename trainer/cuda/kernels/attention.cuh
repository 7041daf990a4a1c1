#pragma once

// What attention's kernels share: tiles of rows in shared memory and the fragments that tensor cores take from them.
#include "trainer/cuda/kernels/device.cuh"

namespace pitcrew::trainer::cuda {

inline constexpr unsigned kAttentionThreads = 128;  // four warps, each 16 rows of a tile of 64
inline constexpr int kTileRows = 64;
inline constexpr float kLog2OfE = 1.4426950408889634f;
inline constexpr float kLogOf2 = 0.6931471805599453f;

// Rows of one head in a row-major matrix in device memory.
struct HeadRows {
  const BF16* data;
  size_t stride;      // between rows
  size_t count;       // rows there are; others read as zeros
  size_t head_width;  // columns there are; others read as zeros
};

// kRows × kWidth values in shared memory; the 16-byte chunks of a row change places with its number, so that eight rows
// of a column of chunks lie in different banks.
template <int kRows, int kWidth>
struct Tile {
  static constexpr int kElements = kRows * kWidth;
  BF16* data;

  __device__ __forceinline__ BF16* chunk(int row, int column) const {
    return data + row * kWidth + ((column / 8 ^ (row & 7)) * 8);
  }

  // Rows `first` and on, asynchronously.
  __device__ __forceinline__ void fetch(const HeadRows& from, size_t first) const {
    constexpr int kChunks = kWidth / 8;
    for (int i = static_cast<int>(threadIdx.x); i < kRows * kChunks; i += static_cast<int>(kAttentionThreads)) {
      const int row = i / kChunks, column = i % kChunks * 8;
      const bool there = first + static_cast<size_t>(row) < from.count && static_cast<size_t>(column) < from.head_width;
      const BF16* source = there ? from.data + (first + static_cast<size_t>(row)) * from.stride + column : from.data;
      copy_async(chunk(row, column), source, there);
    }
  }

  // The 16 × 16 values from (row, column) as the first operand of a product.
  __device__ __forceinline__ void first_operand(uint32_t (&to)[4], int row, int column) const {
    const int lane = static_cast<int>(threadIdx.x % kWarp);
    load_matrices(to, chunk(row + lane % 16, column + lane / 16 * 8));
  }
  // Rows are the product's columns, columns its depth: 16 × 16 values as the second operand, for rows row … row + 7 in
  // to[0], to[1] and row + 8 … row + 15 in to[2], to[3].
  __device__ __forceinline__ void second_operand(uint32_t (&to)[4], int row, int column) const {
    const int lane = static_cast<int>(threadIdx.x % kWarp);
    load_matrices(to, chunk(row + lane % 8 + lane / 16 * 8, column + lane / 8 % 2 * 8));
  }
  // Rows are the product's depth: for columns column … column + 7 in to[0], to[1], and the next eight in to[2], to[3].
  __device__ __forceinline__ void second_operand_transposed(uint32_t (&to)[4], int row, int column) const {
    const int lane = static_cast<int>(threadIdx.x % kWarp);
    load_matrices_transposed(to, chunk(row + lane % 16, column + lane / 16 * 8));
  }
};

// Sums of a 16 × (8 × kColumns) product as one warp holds them: lane l has columns 2(l mod 4) and the next of every
// eight, of rows l / 4 (elements 0 and 1) and l / 4 + 8 (elements 2 and 3).
template <int kColumns>
using Sums = float[kColumns][4];

template <int kColumns>
__device__ __forceinline__ void clear(Sums<kColumns>& sums) {
#pragma unroll
  for (int i = 0; i < kColumns; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) sums[i][j] = 0;
  }
}

// Sums of sixteen columns, rounded, as the first operand of the next product.
template <int kColumns>
__device__ __forceinline__ void as_first_operand(uint32_t (&to)[4], const Sums<kColumns>& sums, int sixteen) {
  to[0] = pack_bf16(sums[2 * sixteen][0], sums[2 * sixteen][1]);
  to[1] = pack_bf16(sums[2 * sixteen][2], sums[2 * sixteen][3]);
  to[2] = pack_bf16(sums[2 * sixteen + 1][0], sums[2 * sixteen + 1][1]);
  to[3] = pack_bf16(sums[2 * sixteen + 1][2], sums[2 * sixteen + 1][3]);
}

// sums += rows row … row + 15 of `a` times the transpose of b: one column for each of b's rows.
template <int kColumns, int kARows, int kBRows, int kWidth>
__device__ __forceinline__ void multiply_rows(Sums<kColumns>& sums, const Tile<kARows, kWidth>& a, int row,
                                              const Tile<kBRows, kWidth>& b) {
  static_assert(kColumns * 8 == kBRows);
#pragma unroll
  for (int depth = 0; depth < kWidth; depth += 16) {
    uint32_t first[4];
    a.first_operand(first, row, depth);
#pragma unroll
    for (int pair = 0; pair < kColumns / 2; ++pair) {
      uint32_t second[4];
      b.second_operand(second, pair * 16, depth);
      multiply_add(sums[2 * pair], first, second[0], second[1]);
      multiply_add(sums[2 * pair + 1], first, second[2], second[3]);
    }
  }
}

// out += weights · b, where weights has a column for each of b's rows.
template <int kColumns, int kOut, int kRows, int kWidth>
__device__ __forceinline__ void multiply_weights(Sums<kOut>& out, const Sums<kColumns>& weights,
                                                 const Tile<kRows, kWidth>& b) {
  static_assert(kColumns * 8 == kRows && kOut * 8 == kWidth);
#pragma unroll
  for (int sixteen = 0; sixteen < kRows / 16; ++sixteen) {
    uint32_t first[4];
    as_first_operand<kColumns>(first, weights, sixteen);
#pragma unroll
    for (int pair = 0; pair < kOut / 2; ++pair) {
      uint32_t second[4];
      b.second_operand_transposed(second, sixteen * 16, pair * 16);
      multiply_add(out[2 * pair], first, second[0], second[1]);
      multiply_add(out[2 * pair + 1], first, second[2], second[3]);
    }
  }
}

// Writes the warp's 16 rows, times `scale`, to rows first … of a head, as far as there are rows and columns.
template <int kOut>
__device__ __forceinline__ void write_rows(const Sums<kOut>& sums, const float (&scale)[2], BF16* to, size_t stride,
                                           size_t first, size_t count, size_t head_width) {
  const unsigned lane = threadIdx.x % kWarp;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const size_t row = first + lane / 4 + static_cast<size_t>(half) * 8;
    if (row >= count) continue;
#pragma unroll
    for (int i = 0; i < kOut; ++i) {
      const size_t column = static_cast<size_t>(i) * 8 + lane % 4 * 2;
      if (column >= head_width) continue;
      *reinterpret_cast<uint32_t*>(to + row * stride + column) =
          pack_bf16(sums[i][2 * half] * scale[half], sums[i][2 * half + 1] * scale[half]);
    }
  }
}

}  // namespace pitcrew::trainer::cuda
