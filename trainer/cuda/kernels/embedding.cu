// The embedding's gradient, added in the order of the tokens: predictions are sorted by token (stably), and each
// token's run is added up by the threads of one block.
#include <algorithm>

#include "trainer/cuda/kernels/device.cuh"
#include "trainer/cuda/kernels/launch.hpp"

namespace pitcrew::trainer::cuda {

namespace {

constexpr unsigned kThreads = 128;
constexpr unsigned kSortThreads = 1024;
constexpr unsigned kDigits = 8;  // of three bits
constexpr unsigned kDigitBits = 3;

struct Tokens {
  const int32_t* tokens;
  size_t length, stride;
  __device__ int32_t of(size_t row) const { return tokens[row / length * stride + row % length]; }
};

// A stable sort of row numbers by token, three bits at a time, by one block: each thread takes a stretch of rows,
// counts its digits, learns where they go, and moves its rows in their order. Two arrays in turns; the last pass ends
// in `rows`.
__global__ void sort_by_token(Tokens tokens, size_t count, unsigned passes, int32_t* rows, int32_t* other) {
  __shared__ uint32_t counts[kDigits][kSortThreads];
  __shared__ uint32_t totals[kDigits];
  const size_t stretch = (count + kSortThreads - 1) / kSortThreads;
  const size_t first = threadIdx.x * stretch < count ? threadIdx.x * stretch : count;
  const size_t last = first + stretch < count ? first + stretch : count;
  int32_t* from = passes % 2 == 0 ? rows : other;
  int32_t* to = passes % 2 == 0 ? other : rows;
  for (size_t i = first; i < last; ++i) from[i] = static_cast<int32_t>(i);
  __syncthreads();
  for (unsigned pass = 0; pass < passes; ++pass) {
    const unsigned shift = pass * kDigitBits;
    uint32_t own[kDigits] = {};
    for (size_t i = first; i < last; ++i) {
      const unsigned digit = static_cast<unsigned>(tokens.of(static_cast<size_t>(from[i]))) >> shift & (kDigits - 1);
#pragma unroll
      for (unsigned d = 0; d < kDigits; ++d) own[d] += d == digit ? 1 : 0;
    }
#pragma unroll
    for (unsigned d = 0; d < kDigits; ++d) counts[d][threadIdx.x] = own[d];
    __syncthreads();
    // Each of the first warps' threads that stands for a digit adds up its row: exclusive sums over threads.
    if (threadIdx.x % kWarp == 0 && threadIdx.x / kWarp < kDigits) {
      const unsigned digit = threadIdx.x / kWarp;
      uint32_t sum = 0;
      for (unsigned i = 0; i < kSortThreads; ++i) {
        const uint32_t value = counts[digit][i];
        counts[digit][i] = sum;
        sum += value;
      }
      totals[digit] = sum;
    }
    __syncthreads();
    uint32_t next[kDigits];
    uint32_t before = 0;
#pragma unroll
    for (unsigned d = 0; d < kDigits; ++d) {
      next[d] = before + counts[d][threadIdx.x];
      before += totals[d];
    }
    for (size_t i = first; i < last; ++i) {
      const int32_t row = from[i];
      const unsigned digit = static_cast<unsigned>(tokens.of(static_cast<size_t>(row))) >> shift & (kDigits - 1);
      uint32_t place = 0;
#pragma unroll
      for (unsigned d = 0; d < kDigits; ++d) {
        if (d == digit) place = next[d]++;
      }
      to[place] = row;
    }
    __syncthreads();
    int32_t* swap = from;
    from = to;
    to = swap;
  }
}

// The block whose row begins a run of equal tokens adds up the run.
__global__ void add_runs(Tokens tokens, size_t count, const int32_t* rows, size_t width, const BF16* d_out,
                         float* d_table, HeldRows held) {
  const size_t begin = blockIdx.x;
  const int32_t token = tokens.of(static_cast<size_t>(rows[begin]));
  if (begin > 0 && tokens.of(static_cast<size_t>(rows[begin - 1])) == token) return;
  const size_t column = size_t{blockIdx.y} * kThreads + threadIdx.x, place = static_cast<size_t>(token) - held.first;
  if (column >= width || place >= held.count) return;
  float* to = d_table + place * width + column;
  float sum = *to;
  for (size_t i = begin; i < count; ++i) {
    const auto row = static_cast<size_t>(rows[i]);
    if (tokens.of(row) != token) break;
    sum += to_float(d_out[row * width + column]);
  }
  *to = sum;
}

__global__ void add_positions(size_t sequences, size_t length, size_t width, const BF16* d_out, float* d_positions,
                              HeldRows held) {
  const size_t column = size_t{blockIdx.y} * kThreads + threadIdx.x, place = blockIdx.x - held.first;
  if (column >= width || place >= held.count) return;
  float* to = d_positions + place * width + column;
  float sum = *to;
  for (size_t s = 0; s < sequences; ++s) sum += to_float(d_out[(s * length + blockIdx.x) * width + column]);
  *to = sum;
}

}  // namespace

// Tokens are below 2^24, ModelConfig's limit.
void Launcher::operator()(const EmbeddingBackward<BF16>& op) const {
  constexpr unsigned kPasses = 24 / kDigitBits;
  const size_t count = op.sequences * op.length;
  const Tokens tokens{op.tokens, op.length, op.token_stride};
  auto* rows = workspace.take<int32_t>(2 * count);
  const auto columns = static_cast<unsigned>(ceil_div(op.width, kThreads));
  launch(sort_by_token, 1, kSortThreads, 0, queue, tokens, count, kPasses, rows, rows + count);
  launch(add_runs, dim3(static_cast<unsigned>(count), columns), kThreads, 0, queue, tokens, count, rows, op.width,
         op.d_out, op.d_table, op.held);
  if (op.d_positions != nullptr) {
    launch(add_positions, dim3(static_cast<unsigned>(op.length), columns), kThreads, 0, queue, op.sequences, op.length,
           op.width, op.d_out, op.d_positions, op.held_positions);
  }
}

}  // namespace pitcrew::trainer::cuda
