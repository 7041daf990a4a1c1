// Causal attention forward (Dao 2023, FlashAttention-2): a block takes 64 queries of one head and goes through the keys
// before them, with a running maximum and sum for each query.
#include <cmath>

#include "lib/base/result.hpp"
#include "trainer/cuda/kernels/attention.cuh"
#include "trainer/cuda/kernels/launch.hpp"

namespace pitcrew::trainer::cuda {

namespace {

struct Forward {
  size_t length, heads, kv_heads, head_width;
  const BF16* qkv;
  BF16* out;
  float* log_sum;
  float scale;  // times log2(e): exponentials are powers of two
};

template <int kWidth>
__global__ void __launch_bounds__(kAttentionThreads) attention_forward(Forward op) {
  using Rows = Tile<kTileRows, kWidth>;
  constexpr int kColumns = kTileRows / 8, kOut = kWidth / 8;
  BF16* memory = dynamic_shared<BF16>();
  const Rows queries{memory};
  // The longest first, so that the last blocks to run are short.
  const unsigned tile = gridDim.x - 1 - blockIdx.x;
  const size_t head = blockIdx.y, sequence = blockIdx.z, kv = head / (op.heads / op.kv_heads);
  const size_t stride = (op.heads + 2 * op.kv_heads) * op.head_width;
  const BF16* base = op.qkv + sequence * op.length * stride;
  const HeadRows q{base + head * op.head_width, stride, op.length, op.head_width};
  const HeadRows k{base + (op.heads + kv) * op.head_width, stride, op.length, op.head_width};
  const HeadRows v{base + (op.heads + op.kv_heads + kv) * op.head_width, stride, op.length, op.head_width};
  const auto keys = [&](unsigned i) { return Rows{memory + (1 + i % 2 * 2) * Rows::kElements}; };
  const auto values = [&](unsigned i) { return Rows{memory + (2 + i % 2 * 2) * Rows::kElements}; };

  const unsigned lane = threadIdx.x % kWarp;
  const int warp_row = static_cast<int>(threadIdx.x / kWarp * 16);
  float out[kOut][4];
  clear<kOut>(out);
  float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};

  queries.fetch(q, size_t{tile} * kTileRows);
  keys(0).fetch(k, 0);
  values(0).fetch(v, 0);
  copy_async_commit();
  for (unsigned i = 0; i <= tile; ++i) {
    if (i < tile) {
      keys(i + 1).fetch(k, size_t{i + 1} * kTileRows);
      values(i + 1).fetch(v, size_t{i + 1} * kTileRows);
      copy_async_commit();
      copy_async_wait<1>();
    } else {
      copy_async_wait<0>();
    }
    __syncthreads();
    float scores[kColumns][4];
    clear<kColumns>(scores);
    multiply_rows<kColumns>(scores, queries, warp_row, keys(i));
    if (i == tile) {
      // On the diagonal, keys behind the query are not seen.
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int key = c * 8 + static_cast<int>(lane % 4) * 2 + e % 2;
          const int query = warp_row + static_cast<int>(lane / 4) + e / 2 * 8;
          if (key > query) scores[c][e] = -INFINITY;
        }
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float maximum = largest[half];
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        maximum = fmaxf(maximum, fmaxf(scores[c][2 * half], scores[c][2 * half + 1]) * op.scale);
      }
      maximum = fmaxf(maximum, shuffle_xor(maximum, 1));
      maximum = fmaxf(maximum, shuffle_xor(maximum, 2));
      const float shrink = fast_exp2(largest[half] - maximum);
      largest[half] = maximum;
      sum[half] *= shrink;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          scores[c][e] = fast_exp2(scores[c][e] * op.scale - maximum);
          sum[half] += scores[c][e];
        }
      }
#pragma unroll
      for (int c = 0; c < kOut; ++c) {
        out[c][2 * half] *= shrink;
        out[c][2 * half + 1] *= shrink;
      }
    }
    multiply_weights<kColumns, kOut>(out, scores, values(i));
    __syncthreads();
  }

  float scale[2];
  const size_t first = size_t{tile} * kTileRows + static_cast<size_t>(warp_row);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    sum[half] += shuffle_xor(sum[half], 1);
    sum[half] += shuffle_xor(sum[half], 2);
    scale[half] = 1.0f / sum[half];
    const size_t query = first + lane / 4 + static_cast<size_t>(half) * 8;
    if (lane % 4 == 0 && query < op.length) {
      op.log_sum[(sequence * op.heads + head) * op.length + query] = largest[half] * kLogOf2 + natural_log(sum[half]);
    }
  }
  const size_t out_stride = op.heads * op.head_width;
  write_rows<kOut>(out, scale, op.out + sequence * op.length * out_stride + head * op.head_width, out_stride, first,
                   op.length, op.head_width);
}

}  // namespace

void Launcher::operator()(const AttentionForward<BF16>& op) const {
  PITCREW_INVARIANT(
      op.head_width % 8 == 0 && op.head_width <= 128,
      "attention has kernels for head widths that are multiples of 8 up to 128; cuda::problems() refuses others");
  const Forward forward{op.length, op.heads, op.kv_heads, op.head_width,
                        op.qkv,    op.out,   op.log_sum,  kLog2OfE / std::sqrt(static_cast<float>(op.head_width))};
  const dim3 grid(static_cast<unsigned>(ceil_div(op.length, kTileRows)), static_cast<unsigned>(op.heads),
                  static_cast<unsigned>(op.sequences));
  if (op.head_width <= 64) {
    launch(attention_forward<64>, grid, kAttentionThreads, 5 * kTileRows * 64 * sizeof(BF16), queue, forward);
  } else {
    launch(attention_forward<128>, grid, kAttentionThreads, 5 * kTileRows * 128 * sizeof(BF16), queue, forward);
  }
}

}  // namespace pitcrew::trainer::cuda
