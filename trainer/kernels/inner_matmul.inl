// Packing and the product of packed panels; included by inner_impl.inl alone.

template <typename T>
constexpr size_t kTileN = PITCREW_TILE_VECTORS * kWidth<T>;

template <typename T, size_t Panel>
inline void transpose_panel(T* to, const T* from, size_t stride, size_t k) {
  size_t p = 0;
  for (; p + 8 <= k; p += 8) {
    for (size_t j = 0; j < Panel; ++j) {
      for (size_t q = 0; q < 8; ++q) to[(p + q) * Panel + j] = from[j * stride + p + q];
    }
  }
  for (; p < k; ++p) {
    for (size_t j = 0; j < Panel; ++j) to[p * Panel + j] = from[j * stride + p];
  }
}

template <typename T>
void pack_transposed(T* to, size_t panel, const T* from, size_t stride, size_t valid, size_t k) {
  if (valid == PITCREW_TILE_M && panel == PITCREW_TILE_M)
    return transpose_panel<T, PITCREW_TILE_M>(to, from, stride, k);
  if (valid == kTileN<T> && panel == kTileN<T>) return transpose_panel<T, kTileN<T>>(to, from, stride, k);
  for (size_t p = 0; p < k; ++p) {
    for (size_t j = 0; j < panel; ++j) to[p * panel + j] = j < valid ? from[j * stride + p] : T{0};
  }
}

template <typename T, size_t Panel>
inline void copy_panel(T* to, const T* from, size_t stride, size_t k) {
  for (size_t p = 0; p < k; ++p) {
    for (size_t j = 0; j < Panel; ++j) to[p * Panel + j] = from[p * stride + j];
  }
}

template <typename T>
void pack_straight(T* to, size_t panel, const T* from, size_t stride, size_t valid, size_t k) {
  if (valid == PITCREW_TILE_M && panel == PITCREW_TILE_M) return copy_panel<T, PITCREW_TILE_M>(to, from, stride, k);
  if (valid == kTileN<T> && panel == kTileN<T>) return copy_panel<T, kTileN<T>>(to, from, stride, k);
  for (size_t p = 0; p < k; ++p) {
    for (size_t j = 0; j < panel; ++j) to[p * panel + j] = j < valid ? from[p * stride + j] : T{0};
  }
}

// One tile of c, in registers for the whole of k.
template <typename T>
inline void multiply_tile(size_t k, const T* a, const T* b, T* c, size_t c_stride, bool accumulate) {
  constexpr size_t kVectors = PITCREW_TILE_VECTORS;
  V<T> sums[PITCREW_TILE_M][kVectors];
#pragma GCC unroll 16
  for (size_t i = 0; i < PITCREW_TILE_M; ++i) {
#pragma GCC unroll 4
    for (size_t j = 0; j < kVectors; ++j) sums[i][j] = V<T>{};
  }
  for (size_t p = 0; p < k; ++p) {
    V<T> row[kVectors];
#pragma GCC unroll 4
    for (size_t j = 0; j < kVectors; ++j) row[j] = load(b + j * kWidth<T>);
#pragma GCC unroll 16
    for (size_t i = 0; i < PITCREW_TILE_M; ++i) {
#pragma GCC unroll 4
      for (size_t j = 0; j < kVectors; ++j) sums[i][j] += a[i] * row[j];
    }
    a += PITCREW_TILE_M;
    b += kTileN<T>;
  }
#pragma GCC unroll 16
  for (size_t i = 0; i < PITCREW_TILE_M; ++i) {
#pragma GCC unroll 4
    for (size_t j = 0; j < kVectors; ++j) {
      T* to = c + i * c_stride + j * kWidth<T>;
      store(to, accumulate ? load(to) + sums[i][j] : sums[i][j]);
    }
  }
}

template <typename T>
void multiply(size_t m, size_t n, size_t k, const T* a, size_t a_step, const T* b, size_t b_step, T* c, size_t c_stride,
              bool accumulate) {
  for (size_t column = 0; column < n; column += kTileN<T>, b += b_step) {
    const size_t columns = n - column < kTileN<T> ? n - column : kTileN<T>;
    const T* panel = a;
    for (size_t row = 0; row < m; row += PITCREW_TILE_M, panel += a_step) {
      const size_t rows = m - row < PITCREW_TILE_M ? m - row : PITCREW_TILE_M;
      T* to = c + row * c_stride + column;
      if (rows == PITCREW_TILE_M && columns == kTileN<T>) {
        multiply_tile(k, panel, b, to, c_stride, accumulate);
        continue;
      }
      alignas(64) T edge[PITCREW_TILE_M * kTileN<T>];
      multiply_tile(k, panel, b, edge, kTileN<T>, false);
      for (size_t i = 0; i < rows; ++i) {
        for (size_t j = 0; j < columns; ++j) {
          to[i * c_stride + j] = accumulate ? to[i * c_stride + j] + edge[i * kTileN<T> + j] : edge[i * kTileN<T> + j];
        }
      }
    }
  }
}
