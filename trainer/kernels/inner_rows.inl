// Loops over one row; included by inner_impl.inl alone.

template <typename T>
T softmax(size_t n, T* x, T scale, T* sum) {
  V<T> most = splat(x[0]);
  for (size_t i = 0; i < n; i += kWidth<T>) most = larger<T>(most, get(x, i, n, x[0]));
  T shift = most[0];
  for (size_t j = 1; j < kWidth<T>; ++j) shift = most[j] > shift ? most[j] : shift;
  shift *= scale;
  V<T> total{};
  size_t i = 0;
  for (; i + kWidth<T> <= n; i += kWidth<T>) {
    const V<T> e = exponential(load(x + i) * scale - shift);
    store(x + i, e);
    total += e;
  }
  T tail = 0;
  if (i < n) {
    const V<T> e = exponential(get(x, i, n) * scale - shift);
    put(x, i, n, e);
    for (size_t j = 0; i + j < n; ++j) tail += e[j];
  }
  *sum = sum_of<T>(total) + tail;
  return shift;
}

template <typename T>
void softmax_backward(size_t n, T* p, T* d, T scale, T log_sum, T delta) {
  for (size_t i = 0; i < n; i += kWidth<T>) {
    const V<T> e = exponential(get(p, i, n) * scale - log_sum);
    put<T>(p, i, n, e);
    put<T>(d, i, n, e * (get(d, i, n) - delta) * scale);
  }
}

template <typename T>
T dot(size_t n, const T* a, const T* b) {
  V<T> total{};
  for (size_t i = 0; i < n; i += kWidth<T>) total += get(a, i, n) * get(b, i, n);
  return sum_of<T>(total);
}

template <typename T>
void multiply_by(size_t n, T* x, T factor) {
  for (size_t i = 0; i < n; i += kWidth<T>) put<T>(x, i, n, get(x, i, n) * factor);
}

template <typename T>
void add(size_t n, T* to, const T* x) {
  for (size_t i = 0; i < n; i += kWidth<T>) put<T>(to, i, n, get(to, i, n) + get(x, i, n));
}

template <typename T>
void add_to(size_t n, T* to, const T* a, const T* b) {
  for (size_t i = 0; i < n; i += kWidth<T>) put<T>(to, i, n, get(a, i, n) + get(b, i, n));
}

// Sixteen sums side by side, whatever the vector's width.
template <typename T, typename F>
inline double sum_by(size_t n, const T* x, F value) {
  double sums[16] = {};
  size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (size_t j = 0; j < 16; ++j) sums[j] += value(x[i + j]);
  }
  for (size_t j = 0; i + j < n; ++j) sums[j] += value(x[i + j]);
  for (size_t half = 8; half > 0; half /= 2) {
    for (size_t j = 0; j < half; ++j) sums[j] += sums[j + half];
  }
  return sums[0];
}
template <typename T>
double sum(size_t n, const T* x) {
  return sum_by(n, x, [](double value) { return value; });
}
template <typename T>
double square_sum(size_t n, const T* x) {
  return sum_by(n, x, [](double value) { return value * value; });
}

template <typename T>
T mean(size_t n, const T* x) {
  V<T> total{};
  for (size_t i = 0; i < n; i += kWidth<T>) total += get(x, i, n);
  return sum_of<T>(total) / static_cast<T>(n);
}

template <typename T>
T variance(size_t n, const T* x, T mean) {
  V<T> total{};
  for (size_t i = 0; i < n; i += kWidth<T>) {
    const V<T> centered = get(x, i, n, mean) - mean;
    total += centered * centered;
  }
  return sum_of<T>(total) / static_cast<T>(n);
}

template <typename T>
void normalize(size_t n, const T* x, T mean, T rstd, const T* weight, const T* bias, T* out) {
  for (size_t i = 0; i < n; i += kWidth<T>) {
    V<T> y = (get(x, i, n) - mean) * rstd * get(weight, i, n);
    if (bias != nullptr) y += get(bias, i, n);
    put<T>(out, i, n, y);
  }
}

template <typename T>
void normalize_backward(size_t n, const T* x, T mean, T rstd, bool centered, const T* weight, const T* d_out, T* d_x,
                        bool accumulate, T* d_weight, T* d_bias) {
  V<T> sum_g{}, sum_gh{};
  for (size_t i = 0; i < n; i += kWidth<T>) {
    const V<T> h = (get(x, i, n, mean) - mean) * rstd;
    const V<T> d = get(d_out, i, n);
    const V<T> g = d * get(weight, i, n);
    sum_g += g;
    sum_gh += g * h;
    put<T>(d_weight, i, n, get(d_weight, i, n) + d * h);
    if (d_bias != nullptr) put<T>(d_bias, i, n, get(d_bias, i, n) + d);
  }
  const T mean_g = centered ? sum_of<T>(sum_g) / static_cast<T>(n) : T{0};
  const T mean_gh = sum_of<T>(sum_gh) / static_cast<T>(n);
  for (size_t i = 0; i < n; i += kWidth<T>) {
    const V<T> h = (get(x, i, n, mean) - mean) * rstd;
    const V<T> g = get(d_out, i, n) * get(weight, i, n);
    V<T> d = (g - mean_g - h * mean_gh) * rstd;
    if (accumulate) d += get(d_x, i, n);
    put<T>(d_x, i, n, d);
  }
}

template <typename T>
void swiglu(size_t n, const T* gate, const T* up, T* out) {
  for (size_t i = 0; i < n; i += kWidth<T>) {
    const V<T> g = get(gate, i, n);
    put<T>(out, i, n, g / (T{1} + exponential(-g)) * get(up, i, n));
  }
}

template <typename T>
void swiglu_backward(size_t n, const T* gate, const T* up, const T* d_out, T* d_gate, T* d_up) {
  for (size_t i = 0; i < n; i += kWidth<T>) {
    const V<T> g = get(gate, i, n), u = get(up, i, n), d = get(d_out, i, n);
    const V<T> sigmoid = T{1} / (T{1} + exponential(-g));
    const V<T> silu = g * sigmoid;
    put<T>(d_up, i, n, d * silu);
    put<T>(d_gate, i, n, d * u * (sigmoid + silu * (T{1} - sigmoid)));
  }
}

// tanh(√(2/π) (x + 0.044715 x³))
template <typename T>
inline V<T> gelu_tanh(V<T> x) {
  const V<T> inner = T(0.79788456080286535588) * x * (T{1} + T(0.044715) * x * x);
  return T{1} - T{2} / (exponential(T{2} * inner) + T{1});
}

template <typename T>
void gelu(size_t n, const T* x, T* out) {
  for (size_t i = 0; i < n; i += kWidth<T>) {
    const V<T> v = get(x, i, n);
    put<T>(out, i, n, T(0.5) * v * (T{1} + gelu_tanh<T>(v)));
  }
}

template <typename T>
void gelu_backward(size_t n, const T* x, const T* d_out, T* d_x) {
  for (size_t i = 0; i < n; i += kWidth<T>) {
    const V<T> v = get(x, i, n);
    const V<T> t = gelu_tanh<T>(v);
    const V<T> slope = T(0.79788456080286535588) * (T{1} + T(3 * 0.044715) * v * v);
    put<T>(d_x, i, n, get(d_out, i, n) * T(0.5) * (T{1} + t + v * (T{1} - t * t) * slope));
  }
}

template <typename T>
void rotate(size_t n, T* a, T* b, const T* cosines, const T* sines, T sign) {
  for (size_t i = 0; i < n; i += kWidth<T>) {
    const V<T> x = get(a, i, n), y = get(b, i, n), c = get(cosines, i, n), s = get(sines, i, n) * sign;
    put<T>(a, i, n, x * c - y * s);
    put<T>(b, i, n, y * c + x * s);
  }
}

template <typename T>
void adamw(size_t n, T* params, T* m, T* v, const T* gradients, T scale, T beta1, T beta2, T step_size,
           T root_correction, T epsilon, T decay) {
  for (size_t i = 0; i < n; i += kWidth<T>) {
    const V<T> g = get(gradients, i, n) * scale;
    const V<T> first = get(m, i, n) * beta1 + g * (T{1} - beta1);
    const V<T> second = get(v, i, n) * beta2 + g * g * (T{1} - beta2);
    const V<T> p = get(params, i, n) * decay;
    put<T>(m, i, n, first);
    put<T>(v, i, n, second);
    put<T>(params, i, n, p - step_size * first / (square_root(second) * root_correction + epsilon));
  }
}
