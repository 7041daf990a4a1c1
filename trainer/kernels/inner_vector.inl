// Vectors of PITCREW_VECTOR_BYTES, in the compiler's own vector types; included by inner_impl.inl alone.

template <typename T>
struct Vector;
template <>
struct Vector<float> {
  using Integer = int;
  typedef float V __attribute__((vector_size(PITCREW_VECTOR_BYTES)));
  typedef int I __attribute__((vector_size(PITCREW_VECTOR_BYTES)));
  typedef float Loose __attribute__((vector_size(PITCREW_VECTOR_BYTES), aligned(4), may_alias));
};
template <>
struct Vector<double> {
  using Integer = long;
  typedef double V __attribute__((vector_size(PITCREW_VECTOR_BYTES)));
  typedef long I __attribute__((vector_size(PITCREW_VECTOR_BYTES)));
  typedef double Loose __attribute__((vector_size(PITCREW_VECTOR_BYTES), aligned(8), may_alias));
};
template <typename T>
using V = typename Vector<T>::V;
template <typename T>
constexpr size_t kWidth = PITCREW_VECTOR_BYTES / sizeof(T);

template <typename T>
inline V<T> splat(T x) {
  return x - V<T>{};
}
template <typename T>
inline V<T> load(const T* p) {
  return *reinterpret_cast<const typename Vector<T>::Loose*>(p);
}
template <typename T>
inline void store(T* p, V<T> x) {
  *reinterpret_cast<typename Vector<T>::Loose*>(p) = x;
}

// Elements i … of a row of n; those beyond its end are `fill`.
template <typename T>
inline V<T> get(const T* row, size_t i, size_t n, T fill = 0) {
  if (i + kWidth<T> <= n) return load(row + i);
  V<T> x = splat(fill);
  for (size_t j = 0; i + j < n; ++j) x[j] = row[i + j];
  return x;
}
template <typename T>
inline void put(T* row, size_t i, size_t n, V<T> x) {
  if (i + kWidth<T> <= n) return store(row + i, x);
  for (size_t j = 0; i + j < n; ++j) row[i + j] = x[j];
}

template <typename T>
inline T sum_of(V<T> x) {
  for (size_t half = kWidth<T> / 2; half > 0; half /= 2) {
    for (size_t j = 0; j < half; ++j) x[j] += x[j + half];
  }
  return x[0];
}
template <typename T>
inline V<T> larger(V<T> a, V<T> b) {
  return a > b ? a : b;
}

// e^x by 2^n × e^r, |r| ≤ ln2/2, Taylor to below half a unit in the last place of T; NaN stays NaN, what is too small
// for a normal number becomes the smallest one.
inline V<float> exponential(V<float> x) {
  x = x < -87.0f ? splat(-87.0f) : x;
  x = x > 88.0f ? splat(88.0f) : x;
  const V<float> magic = splat(12582912.0f);  // 1.5 × 2^23: adding it rounds to an integer
  const V<float> n = (x * 1.44269504089f + magic) - magic;
  const V<float> r = (x - n * 0.693145751953125f) - n * 1.42860682030941723212e-6f;
  V<float> p = r * (1.0f / 5040) + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const Vector<float>::I power = (__builtin_convertvector(n, Vector<float>::I) + 127) << 23;
  return p * (V<float>)power;
}
inline V<double> exponential(V<double> x) {
  x = x < -708.0 ? splat(-708.0) : x;
  x = x > 709.0 ? splat(709.0) : x;
  const V<double> magic = splat(6755399441055744.0);  // 1.5 × 2^52
  const V<double> shifted = x * 1.44269504088896340736 + magic;
  const V<double> n = shifted - magic;
  const V<double> r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
  V<double> p = r * (1.0 / 6227020800) + 1.0 / 479001600;
  p = p * r + 1.0 / 39916800;
  p = p * r + 1.0 / 3628800;
  p = p * r + 1.0 / 362880;
  p = p * r + 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  const Vector<double>::I power = ((Vector<double>::I)shifted + 1023)
                                  << 52;  // the low bits of `shifted` are the integer
  return p * (V<double>)power;
}

inline V<float> square_root(V<float> x) {
  for (size_t j = 0; j < kWidth<float>; ++j) x[j] = __builtin_sqrtf(x[j]);
  return x;
}
inline V<double> square_root(V<double> x) {
  for (size_t j = 0; j < kWidth<double>; ++j) x[j] = __builtin_sqrt(x[j]);
  return x;
}
