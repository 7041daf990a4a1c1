#include "trainer/kernels/attention.hpp"

#include <algorithm>

#include "trainer/device/worker_pool.hpp"
#include "trainer/kernels/inner.hpp"
#include "trainer/tensor/portable_math.hpp"

namespace pitcrew::trainer {

namespace {

// Query rows done at a time. Fixed, since the sums over queries on the way back are cut by it.
constexpr size_t kQueries = 64;

size_t round_up(size_t x, size_t to) { return (x + to - 1) / to * to; }

// Rows of one head within a row-major matrix.
template <typename T>
struct Head {
  T* data;
  size_t stride;
  T* row(size_t t) const { return data + t * stride; }
};

// Where the parts of a worker's scratch begin.
template <typename T>
class Scratch {
 public:
  explicit Scratch(T* base) : next_(base) {}
  T* take(size_t elements) {
    T* taken = next_;
    next_ += round_up(elements, 64 / sizeof(T));
    return taken;
  }

 private:
  T* next_;
};

// The packings that one head's products need; see Inner.
template <typename T>
struct Packer {
  const Inner<T>& in;
  size_t width;  // of a head

  size_t padded(size_t n) const { return round_up(n, in.tile_n); }
  // b = xᵀ: width × rows. Panels are width × tile_n apart.
  void b_transposed(T* to, const Head<const T>& x, size_t rows) const {
    for (size_t j = 0; j < rows; j += in.tile_n, to += width * in.tile_n) {
      in.pack_transposed(to, in.tile_n, x.row(j), x.stride, std::min(in.tile_n, rows - j), width);
    }
  }
  // b = x: rows × width. Panels are rows × tile_n apart.
  void b(T* to, const Head<const T>& x, size_t rows) const {
    for (size_t j = 0; j < width; j += in.tile_n, to += rows * in.tile_n) {
      in.pack_straight(to, in.tile_n, x.data + j, x.stride, std::min(in.tile_n, width - j), rows);
    }
  }
  // a = x: rows × k.
  void a(T* to, const T* x, size_t stride, size_t rows, size_t k) const {
    for (size_t i = 0; i < rows; i += in.tile_m, to += in.tile_m * k) {
      in.pack_transposed(to, in.tile_m, x + i * stride, stride, std::min(in.tile_m, rows - i), k);
    }
  }
  // a = xᵀ: columns × k, where x is k × columns.
  void a_transposed(T* to, const T* x, size_t stride, size_t columns, size_t k) const {
    for (size_t i = 0; i < columns; i += in.tile_m, to += in.tile_m * k) {
      in.pack_straight(to, in.tile_m, x + i, stride, std::min(in.tile_m, columns - i), k);
    }
  }
};

// 1/√width without the library's pow or rsqrt.
template <typename T>
T scale_of(size_t width) {
  return static_cast<T>(1 / __builtin_sqrt(static_cast<double>(width)));
}

}  // namespace

template <typename T>
void run(WorkerPool& workers, const AttentionForward<T>& op) {
  const Inner<T>& in = inner<T>();
  const Packer<T> pack{in, op.head_width};
  const size_t length = op.length, width = op.head_width;
  const size_t row_stride = (op.heads + 2 * op.kv_heads) * width, out_stride = op.heads * width;
  const size_t score_stride = pack.padded(length), query_rows = round_up(kQueries, in.tile_m);
  const size_t elements = score_stride * width + pack.padded(width) * length + kQueries * score_stride +
                          query_rows * std::max(width, length) + 4 * 64;

  workers.run(op.sequences * op.heads, [&](size_t part, unsigned worker) {
    const size_t s = part / op.heads, head = part % op.heads, kv = head / (op.heads / op.kv_heads);
    const T* base = op.qkv + s * length * row_stride;
    const Head<const T> q{base + head * width, row_stride}, k{base + (op.heads + kv) * width, row_stride},
        v{base + (op.heads + op.kv_heads + kv) * width, row_stride};
    Scratch<T> scratch(reinterpret_cast<T*>(workers.scratch(worker, elements * sizeof(T))));
    T* keys = scratch.take(score_stride * width);
    T* values = scratch.take(pack.padded(width) * length);
    T* scores = scratch.take(kQueries * score_stride);
    T* packed = scratch.take(query_rows * std::max(width, length));
    pack.b_transposed(keys, k, length);
    pack.b(values, v, length);

    for (size_t q0 = 0; q0 < length; q0 += kQueries) {
      const size_t queries = std::min(kQueries, length - q0), visible = q0 + queries;
      pack.a(packed, q.row(q0), q.stride, queries, width);
      in.multiply(queries, visible, width, packed, in.tile_m * width, keys, width * in.tile_n, scores, score_stride,
                  false);
      T* log_sum = op.log_sum + (s * op.heads + head) * length + q0;
      for (size_t i = 0; i < queries; ++i) {
        T* row = scores + i * score_stride;
        T sum;
        const T shift = in.softmax(q0 + i + 1, row, scale_of<T>(width), &sum);
        in.multiply_by(q0 + i + 1, row, T{1} / sum);
        std::fill(row + q0 + i + 1, row + visible, T{0});
        log_sum[i] = shift + static_cast<T>(portable_log(sum));
      }
      pack.a(packed, scores, score_stride, queries, visible);
      in.multiply(queries, width, visible, packed, in.tile_m * visible, values, length * in.tile_n,
                  op.out + (s * length + q0) * out_stride + head * width, out_stride, false);
    }
  });
}

template <typename T>
void run(WorkerPool& workers, const AttentionBackward<T>& op) {
  const Inner<T>& in = inner<T>();
  const Packer<T> pack{in, op.head_width};
  const size_t length = op.length, width = op.head_width, group = op.heads / op.kv_heads;
  const size_t row_stride = (op.heads + 2 * op.kv_heads) * width, out_stride = op.heads * width;
  const size_t score_stride = pack.padded(length), query_rows = round_up(kQueries, in.tile_m);
  const size_t key_rows = round_up(length, in.tile_m), padded_width = pack.padded(width);
  const size_t packed_size = std::max(query_rows * std::max(width, length), key_rows * kQueries);
  const size_t elements = 2 * score_stride * width + padded_width * length + 2 * kQueries * score_stride + packed_size +
                          padded_width * kQueries + 8 * 64;

  workers.run(op.sequences * op.kv_heads, [&](size_t part, unsigned worker) {
    const size_t s = part / op.kv_heads, kv = part % op.kv_heads;
    const size_t first = s * length * row_stride;
    const size_t key_column = (op.heads + kv) * width, value_column = (op.heads + op.kv_heads + kv) * width;
    const Head<const T> k{op.qkv + first + key_column, row_stride}, v{op.qkv + first + value_column, row_stride};
    const Head<T> d_k{op.d_qkv + first + key_column, row_stride}, d_v{op.d_qkv + first + value_column, row_stride};
    Scratch<T> scratch(reinterpret_cast<T*>(workers.scratch(worker, elements * sizeof(T))));
    T* keys_transposed = scratch.take(score_stride * width);
    T* values_transposed = scratch.take(score_stride * width);
    T* keys = scratch.take(padded_width * length);
    T* p = scratch.take(kQueries * score_stride);
    T* d = scratch.take(kQueries * score_stride);
    T* packed = scratch.take(packed_size);
    T* rows = scratch.take(padded_width * kQueries);
    pack.b_transposed(keys_transposed, k, length);
    pack.b_transposed(values_transposed, v, length);
    pack.b(keys, k, length);
    for (size_t t = 0; t < length; ++t) {
      std::fill_n(d_k.row(t), width, T{0});
      std::fill_n(d_v.row(t), width, T{0});
    }

    for (size_t head = kv * group; head < (kv + 1) * group; ++head) {
      const Head<const T> q{op.qkv + first + head * width, row_stride};
      const Head<T> d_q{op.d_qkv + first + head * width, row_stride};
      const Head<const T> out{op.out + s * length * out_stride + head * width, out_stride};
      const Head<const T> d_out{op.d_out + s * length * out_stride + head * width, out_stride};
      const T* log_sum = op.log_sum + (s * op.heads + head) * length;
      for (size_t q0 = 0; q0 < length; q0 += kQueries) {
        const size_t queries = std::min(kQueries, length - q0), visible = q0 + queries;
        pack.a(packed, q.row(q0), q.stride, queries, width);
        in.multiply(queries, visible, width, packed, in.tile_m * width, keys_transposed, width * in.tile_n, p,
                    score_stride, false);
        pack.a(packed, d_out.row(q0), d_out.stride, queries, width);
        in.multiply(queries, visible, width, packed, in.tile_m * width, values_transposed, width * in.tile_n, d,
                    score_stride, false);
        for (size_t i = 0; i < queries; ++i) {
          const size_t seen = q0 + i + 1;
          T* p_row = p + i * score_stride;
          T* d_row = d + i * score_stride;
          const T delta = in.dot(width, out.row(q0 + i), d_out.row(q0 + i));
          in.softmax_backward(seen, p_row, d_row, scale_of<T>(width), log_sum[q0 + i], delta);
          std::fill(p_row + seen, p_row + visible, T{0});
          std::fill(d_row + seen, d_row + visible, T{0});
        }
        // d_q = d · k; d_k += dᵀ · q; d_v += pᵀ · d_out.
        pack.a(packed, d, score_stride, queries, visible);
        in.multiply(queries, width, visible, packed, in.tile_m * visible, keys, length * in.tile_n, d_q.row(q0),
                    d_q.stride, false);
        pack.a_transposed(packed, d, score_stride, visible, queries);
        pack.b(rows, {q.row(q0), q.stride}, queries);
        in.multiply(visible, width, queries, packed, in.tile_m * queries, rows, queries * in.tile_n, d_k.data,
                    d_k.stride, true);
        pack.a_transposed(packed, p, score_stride, visible, queries);
        pack.b(rows, {d_out.row(q0), d_out.stride}, queries);
        in.multiply(visible, width, queries, packed, in.tile_m * queries, rows, queries * in.tile_n, d_v.data,
                    d_v.stride, true);
      }
    }
  });
}

template void run(WorkerPool&, const AttentionForward<float>&);
template void run(WorkerPool&, const AttentionForward<double>&);
template void run(WorkerPool&, const AttentionBackward<float>&);
template void run(WorkerPool&, const AttentionBackward<double>&);

}  // namespace pitcrew::trainer
