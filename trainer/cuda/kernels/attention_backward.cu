// Causal attention backward, deterministic: one kernel makes the gradients of keys and values, a block for 64 keys, and
// one those of queries, a block for 64 queries. Both compute the scores again; nobody adds to what another has written.
#include <cmath>

#include "lib/base/result.hpp"
#include "trainer/cuda/kernels/attention.cuh"
#include "trainer/cuda/kernels/launch.hpp"

namespace pitcrew::trainer::cuda {

namespace {

struct Backward {
  size_t sequences, length, heads, kv_heads, head_width;
  const BF16 *qkv, *out, *d_out;
  const float* log_sum;
  const float* delta;  // [sequences][heads][length]: the sum of out × d_out over each head
  BF16* d_qkv;
  float scale;

  __device__ size_t stride() const { return (heads + 2 * kv_heads) * head_width; }
  __device__ size_t out_stride() const { return heads * head_width; }
  __device__ HeadRows rows(size_t sequence, size_t column) const {
    return {qkv + sequence * length * stride() + column * head_width, stride(), length, head_width};
  }
  __device__ HeadRows d_out_rows(size_t sequence, size_t head) const {
    return {d_out + sequence * length * out_stride() + head * head_width, out_stride(), length, head_width};
  }
  __device__ BF16* gradient(size_t sequence, size_t column) const {
    return d_qkv + sequence * length * stride() + column * head_width;
  }
};

// A warp per head of a row.
__global__ void row_deltas(Backward op, float* delta) {
  const size_t item = global_thread() / kWarp, lane = threadIdx.x % kWarp;
  if (item >= op.sequences * op.length * op.heads) return;
  const size_t row = item / op.heads, head = item % op.heads;
  const size_t at = row * op.out_stride() + head * op.head_width;
  float sum = 0;
  for (size_t i = lane; i < op.head_width; i += kWarp) sum += to_float(op.out[at + i]) * to_float(op.d_out[at + i]);
  sum = warp_sum(sum);
  if (lane == 0) delta[(row / op.length * op.heads + head) * op.length + row % op.length] = sum;
}

// Rows of scores are keys here, columns queries: what comes out of one product is the first operand of the next.
template <int kWidth, int kQueries>
__global__ void __launch_bounds__(kAttentionThreads) key_value_gradients(Backward op) {
  using Keys = Tile<kTileRows, kWidth>;
  using Queries = Tile<kQueries, kWidth>;
  constexpr int kColumns = kQueries / 8, kOut = kWidth / 8;
  BF16* memory = dynamic_shared<BF16>();
  const Keys keys{memory}, values{memory + Keys::kElements};
  BF16* stages = memory + 2 * Keys::kElements;
  const auto queries = [&](size_t i) { return Queries{stages + i % 2 * 2 * Queries::kElements}; };
  const auto d_outs = [&](size_t i) { return Queries{stages + (i % 2 * 2 + 1) * Queries::kElements}; };
  // For each of two stages: the queries' logarithms of sums (times log2(e)), then their deltas.
  float* const rows = reinterpret_cast<float*>(stages + 4 * Queries::kElements);

  const size_t kv = blockIdx.y, sequence = blockIdx.z, group = op.heads / op.kv_heads;
  const size_t first_key = size_t{blockIdx.x} * kTileRows;
  const size_t first_tile = first_key / kQueries, tiles = (op.length + kQueries - 1) / kQueries - first_tile;
  const unsigned lane = threadIdx.x % kWarp;
  const int warp_row = static_cast<int>(threadIdx.x / kWarp * 16);
  const auto fetch = [&](size_t i) {
    const size_t head = kv * group + i / tiles, first = (first_tile + i % tiles) * kQueries;
    queries(i).fetch(op.rows(sequence, head), first);
    d_outs(i).fetch(op.d_out_rows(sequence, head), first);
    if (threadIdx.x < kQueries) {
      const size_t query = first + threadIdx.x, at = (sequence * op.heads + head) * op.length + query;
      float* to = rows + i % 2 * 2 * kQueries + threadIdx.x;
      // A query that isn't there has an infinite sum: its weights are 0.
      to[0] = query < op.length ? op.log_sum[at] * kLog2OfE : INFINITY;
      to[kQueries] = query < op.length ? op.delta[at] : 0.0f;
    }
    copy_async_commit();
  };

  float d_keys[kOut][4], d_values[kOut][4];
  clear<kOut>(d_keys);
  clear<kOut>(d_values);
  keys.fetch(op.rows(sequence, op.heads + kv), first_key);
  values.fetch(op.rows(sequence, op.heads + op.kv_heads + kv), first_key);
  fetch(0);
  const size_t rounds = group * tiles;
  for (size_t i = 0; i < rounds; ++i) {
    if (i + 1 < rounds) {
      fetch(i + 1);
      copy_async_wait<1>();
    } else {
      copy_async_wait<0>();
    }
    __syncthreads();
    const float* log_sum = rows + i % 2 * 2 * kQueries;
    const size_t first_query = (first_tile + i % tiles) * kQueries;
    float weights[kColumns][4], d_scores[kColumns][4];
    clear<kColumns>(weights);
    clear<kColumns>(d_scores);
    multiply_rows<kColumns>(weights, keys, warp_row, queries(i));
    multiply_rows<kColumns>(d_scores, values, warp_row, d_outs(i));
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int column = c * 8 + static_cast<int>(lane % 4) * 2 + e % 2;
        const size_t key = first_key + static_cast<size_t>(warp_row) + lane / 4 + static_cast<size_t>(e / 2) * 8;
        const bool seen = key <= first_query + static_cast<size_t>(column);
        const float weight = seen ? fast_exp2(weights[c][e] * op.scale * kLog2OfE - log_sum[column]) : 0.0f;
        weights[c][e] = weight;
        d_scores[c][e] = weight * (d_scores[c][e] - log_sum[kQueries + column]);
      }
    }
    multiply_weights<kColumns, kOut>(d_values, weights, d_outs(i));
    multiply_weights<kColumns, kOut>(d_keys, d_scores, queries(i));
    __syncthreads();
  }
  const size_t first = first_key + static_cast<size_t>(warp_row);
  const float scale[2] = {op.scale, op.scale}, one[2] = {1, 1};
  write_rows<kOut>(d_keys, scale, op.gradient(sequence, op.heads + kv), op.stride(), first, op.length, op.head_width);
  write_rows<kOut>(d_values, one, op.gradient(sequence, op.heads + op.kv_heads + kv), op.stride(), first, op.length,
                   op.head_width);
}

template <int kWidth, int kKeys>
__global__ void __launch_bounds__(kAttentionThreads) query_gradients(Backward op) {
  using Queries = Tile<kTileRows, kWidth>;
  using Keys = Tile<kKeys, kWidth>;
  constexpr int kColumns = kKeys / 8, kOut = kWidth / 8;
  BF16* memory = dynamic_shared<BF16>();
  const Queries queries{memory}, d_outs{memory + Queries::kElements};
  BF16* stages = memory + 2 * Queries::kElements;
  const auto keys = [&](size_t i) { return Keys{stages + i % 2 * 2 * Keys::kElements}; };
  const auto values = [&](size_t i) { return Keys{stages + (i % 2 * 2 + 1) * Keys::kElements}; };

  const size_t tile = gridDim.x - 1 - blockIdx.x, head = blockIdx.y, sequence = blockIdx.z;
  const size_t kv = head / (op.heads / op.kv_heads), first_query = tile * kTileRows;
  const unsigned lane = threadIdx.x % kWarp;
  const int warp_row = static_cast<int>(threadIdx.x / kWarp * 16);
  const HeadRows k = op.rows(sequence, op.heads + kv), v = op.rows(sequence, op.heads + op.kv_heads + kv);
  float log_sum[2], delta[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const size_t query = first_query + static_cast<size_t>(warp_row) + lane / 4 + static_cast<size_t>(half) * 8;
    const size_t at = (sequence * op.heads + head) * op.length + query;
    log_sum[half] = query < op.length ? op.log_sum[at] * kLog2OfE : INFINITY;
    delta[half] = query < op.length ? op.delta[at] : 0.0f;
  }

  float d_queries[kOut][4];
  clear<kOut>(d_queries);
  queries.fetch(op.rows(sequence, head), first_query);
  d_outs.fetch(op.d_out_rows(sequence, head), first_query);
  keys(0).fetch(k, 0);
  values(0).fetch(v, 0);
  copy_async_commit();
  const size_t last_key = first_query + kTileRows < op.length ? first_query + kTileRows : op.length;
  const size_t rounds = (last_key + kKeys - 1) / kKeys;
  for (size_t i = 0; i < rounds; ++i) {
    if (i + 1 < rounds) {
      keys(i + 1).fetch(k, (i + 1) * kKeys);
      values(i + 1).fetch(v, (i + 1) * kKeys);
      copy_async_commit();
      copy_async_wait<1>();
    } else {
      copy_async_wait<0>();
    }
    __syncthreads();
    float weights[kColumns][4], d_scores[kColumns][4];
    clear<kColumns>(weights);
    clear<kColumns>(d_scores);
    multiply_rows<kColumns>(weights, queries, warp_row, keys(i));
    multiply_rows<kColumns>(d_scores, d_outs, warp_row, values(i));
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const size_t key = i * kKeys + static_cast<size_t>(c) * 8 + lane % 4 * 2 + static_cast<size_t>(e % 2);
        const size_t query = first_query + static_cast<size_t>(warp_row) + lane / 4 + static_cast<size_t>(e / 2) * 8;
        const float weight = key <= query ? fast_exp2(weights[c][e] * op.scale * kLog2OfE - log_sum[e / 2]) : 0.0f;
        d_scores[c][e] = weight * (d_scores[c][e] - delta[e / 2]);
      }
    }
    multiply_weights<kColumns, kOut>(d_queries, d_scores, keys(i));
    __syncthreads();
  }
  const float scale[2] = {op.scale, op.scale};
  write_rows<kOut>(d_queries, scale, op.gradient(sequence, head), op.stride(),
                   first_query + static_cast<size_t>(warp_row), op.length, op.head_width);
}

template <int kWidth, int kColumns>
void backward(Queue queue, const Backward& op) {
  const auto tiles = static_cast<unsigned>(ceil_div(op.length, kTileRows)),
             sequences = static_cast<unsigned>(op.sequences);
  const size_t shared = (2 * kTileRows + 4 * kColumns) * kWidth * sizeof(BF16);
  launch(key_value_gradients<kWidth, kColumns>, dim3(tiles, static_cast<unsigned>(op.kv_heads), sequences),
         kAttentionThreads, shared + 4 * kColumns * sizeof(float), queue, op);
  launch(query_gradients<kWidth, kColumns>, dim3(tiles, static_cast<unsigned>(op.heads), sequences), kAttentionThreads,
         shared, queue, op);
}

}  // namespace

void Launcher::operator()(const AttentionBackward<BF16>& op) const {
  PITCREW_INVARIANT(
      op.head_width % 8 == 0 && op.head_width <= 128,
      "attention has kernels for head widths that are multiples of 8 up to 128; cuda::problems() refuses others");
  const size_t items = op.sequences * op.length * op.heads;
  auto* delta = workspace.take<float>(items);
  const Backward backward_op{op.sequences,  op.length, op.heads, op.kv_heads,
                             op.head_width, op.qkv,    op.out,   op.d_out,
                             op.log_sum,    delta,     op.d_qkv, 1.0f / std::sqrt(static_cast<float>(op.head_width))};
  launch(row_deltas, static_cast<unsigned>(ceil_div(items * kWarp, 256)), 256, 0, queue, backward_op, delta);
  // Fewer columns at a time where heads are wide: two gradients of 64 × 128 fill the registers.
  if (op.head_width <= 64) {
    backward<64, 64>(queue, backward_op);
  } else {
    backward<128, 32>(queue, backward_op);
  }
}

}  // namespace pitcrew::trainer::cuda
