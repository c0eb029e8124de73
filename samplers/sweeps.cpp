// Gibbs sweeps and annealed importance sampling of restricted Boltzmann machines, fused.
//
// Sixteen chains run side by side, one in each lane of a vector; every loop is over units. A step
// multiplies by the couplings, weighs and draws without leaving the cache, and leaves out of the
// products the units that are off in all sixteen. Random numbers are Philox4x32-10 (Salmon et al.
// 2011) counted by unit, step and chain: they do not depend on how chains are shared among threads.
//
// What is computed, and in whose names: samplers/fused.py.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>
#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace {

constexpr int LANES = 16;
#ifdef __AVX512F__
constexpr int TILE = 24;  // sums that fit the registers
#else
constexpr int TILE = 6;
#endif
constexpr int FACTORS = 96;  // 2^96 is still a float

// ---- vectors ----

template <typename T>
struct Lanes;
template <>
struct Lanes<float> {
  typedef float Vec __attribute__((vector_size(4 * LANES)));
  typedef int32_t Int __attribute__((vector_size(4 * LANES)));
};
template <>
struct Lanes<double> {
  typedef double Vec __attribute__((vector_size(8 * LANES)));
  typedef int64_t Int __attribute__((vector_size(8 * LANES)));
};
template <typename T>
using Vec = typename Lanes<T>::Vec;
template <typename T>
using Int = typename Lanes<T>::Int;
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint64_t Wide __attribute__((vector_size(4 * LANES)));  // of every other lane

template <typename V>
inline V negative_size(V x) {
  return x < 0 ? x : -x;
}

// Whether a mask is set in any lane.
template <typename V>
inline bool any(V mask) {
#if defined(__AVX512F__)
  __m512i part[sizeof(V) / 64];
  std::memcpy(part, &mask, sizeof(V));
  for (size_t n = 1; n < sizeof(V) / 64; ++n) part[0] = _mm512_or_si512(part[0], part[n]);
  return _mm512_test_epi64_mask(part[0], part[0]);
#else
  uint64_t part[sizeof(V) / 8], all = 0;
  std::memcpy(part, &mask, sizeof(V));
  for (uint64_t p : part) all |= p;
  return all;
#endif
}

template <typename V>
inline V root(V x) {
  typename std::remove_reference<decltype(x[0])>::type part[LANES];
  std::memcpy(part, &x, sizeof x);
  for (int n = 0; n < LANES; ++n) part[n] = std::sqrt(part[n]);
  std::memcpy(&x, part, sizeof x);
  return x;
}

// ---- random numbers ----

inline Wide product_of_halves(Wide x, uint32_t m) {  // of the low 32 bits
#if defined(__AVX512F__)
  return (Wide)_mm512_mul_epu32((__m512i)x, _mm512_set1_epi64(m));
#elif defined(__AVX2__)
  __m256i half[2];
  std::memcpy(half, &x, sizeof x);
  for (__m256i &part : half) part = _mm256_mul_epu32(part, _mm256_set1_epi64x(m));
  std::memcpy(&x, half, sizeof x);
  return x;
#else
  return (x & 0xFFFFFFFFu) * m;
#endif
}

struct Random {
  Words low, high;  // the number of the chain
  uint32_t key0, key1;

  // Four words for each lane.
  inline void operator()(uint32_t unit, uint32_t step, Words out[4]) const {
    Wide c[2][4];
    for (int odd = 0; odd < 2; ++odd) {  // what is above the low 32 bits never matters
      c[odd][0] = Wide{} + unit, c[odd][1] = Wide{} + step;
      c[odd][2] = (Wide)low >> 32 * odd, c[odd][3] = (Wide)high >> 32 * odd;
    }
    uint64_t k0 = key0, k1 = key1;
    for (int round = 0; round < 10; ++round) {
      for (auto &x : c) {
        const Wide p = product_of_halves(x[0], 0xD2511F53u);
        const Wide q = product_of_halves(x[2], 0xCD9E8D57u);
        x[0] = (q >> 32) ^ x[1] ^ k0, x[2] = (p >> 32) ^ x[3] ^ k1, x[1] = q, x[3] = p;
      }
      k0 = uint32_t(k0 + 0x9E3779B9u), k1 = uint32_t(k1 + 0xBB67AE85u);
    }
    for (int n = 0; n < 4; ++n) out[n] = (Words)((c[0][n] & 0xFFFFFFFFu) | (c[1][n] << 32));
  }
};

// ---- elementary functions: of floats by polynomials (Cephes), of doubles by the library ----

inline Vec<float> exp_of_negative(Vec<float> x) {
  x = x < -87.0f ? Vec<float>{} - 87.0f : x;
  const Int<float> n = __builtin_convertvector(x * 1.44269504f - 0.5f, Int<float>);
  const Vec<float> whole = __builtin_convertvector(n, Vec<float>);
  const Vec<float> f = x - whole * 0.693359375f + whole * 2.12194440e-4f;
  Vec<float> p = f * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * f + 8.3334519073e-3f, p = p * f + 4.1665795894e-2f;
  p = p * f + 1.6666665459e-1f, p = p * f + 0.5f;
  return (p * f * f + f + 1) * (Vec<float>)((n + 127) << 23);
}

inline Vec<float> log_of_positive(Vec<float> x) {
  const Int<float> bits = (Int<float>)x, exponent = (bits - 0x3f3504f3) >> 23;
  const Vec<float> m = (Vec<float>)(bits - (exponent << 23)) - 1;
  Vec<float> p = m * 7.0376836292e-2f - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f, p = p * m - 1.2420140846e-1f, p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f, p = p * m + 2.0000714765e-1f, p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  return m * m * (m * p - 0.5f) + m + __builtin_convertvector(exponent, Vec<float>) * 0.6931471806f;
}

inline void of_turn(Words w, Vec<float> &cosine, Vec<float> &sine) {  // w / 2^32 turns
  // Two bits say the quarter, the others how far from its middle.
  const Vec<float> t = __builtin_convertvector((Int<float>)(w << 2), Vec<float>) * 3.6572952e-10f;
  const Vec<float> t2 = t * t;
  const Vec<float> s =
      t + t * t2 * ((8.3321608736e-3f - t2 * 1.9515295891e-4f) * t2 - 1.6666654611e-1f);
  const Vec<float> c = t2 * t2 * ((2.4433157118e-5f * t2 - 1.3887316255e-3f) * t2 +
                                  4.1666645683e-2f) - 0.5f * t2 + 1;
  const Int<float> swap = (Int<float>)(w << 1) < 0, flip = (Int<float>)w & INT32_MIN;
  cosine = (Vec<float>)((Int<float>)(swap ? s : c) ^ flip);
  sine = (Vec<float>)((Int<float>)(swap ? c : s) ^ flip);
}

inline Vec<double> exp_of_negative(Vec<double> x) {
  for (int n = 0; n < LANES; ++n) x[n] = std::exp(x[n]);
  return x;
}

inline Vec<double> log_of_positive(Vec<double> x) {
  for (int n = 0; n < LANES; ++n) x[n] = std::log(x[n]);
  return x;
}

inline void of_turn(Words w, Vec<double> &cosine, Vec<double> &sine) {
  for (int n = 0; n < LANES; ++n) {
    const double angle = w[n] * (2 * M_PI / 4294967296.0);
    cosine[n] = std::cos(angle), sine[n] = std::sin(angle);
  }
}

template <typename T>
inline Vec<T> uniform(Words w) {
  return (__builtin_convertvector(w >> 8, Vec<T>) + T(0.5)) * T(1.0 / 16777216);
}

template <typename T>
inline void normal(const Words w[4], Vec<T> out[4]) {  // Box & Muller
  for (int n = 0; n < 4; n += 2) {
    const Vec<T> u = (__builtin_convertvector(w[n], Vec<T>) + T(0.5)) * T(1.0 / 4294967296.0);
    const Vec<T> radius = root(log_of_positive(u) * T(-2));
    Vec<T> cosine, sine;
    of_turn(w[n + 1], cosine, sine);
    out[n] = radius * cosine, out[n + 1] = radius * sine;
  }
}

// Whether u < σ(a), e being exp(-|a|).
template <typename T>
inline Int<T> is_on(Vec<T> u, Vec<T> a, Vec<T> e) {
  return u * (1 + e) < (a < 0 ? e : Vec<T>{} + 1);
}

// ---- products ----

template <typename T, int N>
void panel(const Vec<T> *x, const std::vector<int> &rows, const T *matrix, int columns,
           Vec<T> *out) {
  Vec<T> sum[N];
  for (int n = 0; n < N; ++n) sum[n] = out[n];
  for (int k : rows) {
    const Vec<T> value = x[k];
    const T *row = matrix + size_t(k) * columns;
#pragma GCC unroll 32
    for (int n = 0; n < N; ++n) sum[n] += value * row[n];
  }
  for (int n = 0; n < N; ++n) out[n] = sum[n];
}

template <typename T>
using Panel = void (*)(const Vec<T> *, const std::vector<int> &, const T *, int, Vec<T> *);
template <typename T, int... N>
constexpr std::array<Panel<T>, sizeof...(N)> panels(std::integer_sequence<int, N...>) {
  return {panel<T, N + 1>...};
}

// out += xᵀ matrix, over the rows that count; in panels of about as many columns each.
template <typename T>
void multiply(const Vec<T> *x, const std::vector<int> &rows, const T *matrix, int columns,
              Vec<T> *out) {
  static constexpr auto of_width = panels<T>(std::make_integer_sequence<int, TILE>());
  const int count = (columns + TILE - 1) / TILE;
  for (int n = 0; n < count; ++n) {
    const int c = columns * n / count, width = columns * (n + 1) / count - c;
    of_width[width - 1](x, rows, matrix + c, columns, out + c);
  }
}

}  // namespace

// ---- the chains ----

template <typename T>
struct Job {
  int64_t visible, hidden, densities, chains, rows, steps, seed, begin, move_last;
  const T *weight, *transposed;               // (V, H), (H, V)
  const T *alpha, *mu;                        // (H), or null: no slabs
  const T *damping, *damping_transposed;      // (H, V), (V, H), or null: none
  const T *visible_bias, *hidden_bias;        // (densities, V), (densities, H)
  const T *precision;                         // (densities, V), or null: frames are binary
  const T *base_bias;                         // (densities, V), or null: none
  const T *levels;                            // (steps + 1, 4): factors of W, μ, b̃_v and the base's
  T *v;                                       // (rows, V), or null: frames are not kept
  double *log_weights, *rises;                // (rows), (steps, rows), or null
};

template <typename T>
class Block {
  typedef Vec<T> V;
  const Job<T> &job;
  const int visible, hidden, count;
  const int64_t row;
  const bool slabs;
  std::vector<V> v, squares, visible_bias, base_bias, precision, hidden_bias, linear, quadratic,
      logits, sizes, x, spikes, field, total_precision;
  std::vector<T> variance, deviation;
  std::vector<int> on_visible, on_hidden;
  Random random;

 public:
  Block(const Job<T> &job, int64_t row, int count)
      : job(job), visible(job.visible), hidden(job.hidden), count(count), row(row),
        slabs(job.alpha), v(visible), squares(job.damping ? visible : 0), visible_bias(visible),
        base_bias(job.base_bias ? visible : 0), precision(job.precision ? visible : 0),
        hidden_bias(hidden), linear(hidden), quadratic(hidden), logits(hidden), sizes(hidden), x(hidden), spikes(hidden),
        field(visible), total_precision(precision) {
    for (int i = 0; i < hidden && slabs; ++i) {
      variance.push_back(1 / job.alpha[i]);
      deviation.push_back(std::sqrt(variance[i]));
    }
    random.key0 = uint32_t(job.seed), random.key1 = uint32_t(uint64_t(job.seed) >> 32);
    for (int n = 0; n < LANES; ++n) {  // lanes without a chain repeat the first one
      const int64_t r = row + (n < count ? n : 0), d = r / job.chains % job.densities;
      random.low[n] = uint32_t(r), random.high[n] = uint64_t(r) >> 32;
      for (int j = 0; j < visible; ++j) {
        visible_bias[j][n] = job.visible_bias[d * visible + j];
        if (job.base_bias) base_bias[j][n] = job.base_bias[d * visible + j];
        if (job.precision) precision[j][n] = job.precision[d * visible + j];
        if (!job.begin) v[j][n] = job.v[r * visible + j];
      }
      for (int i = 0; i < hidden; ++i) hidden_bias[i][n] = job.hidden_bias[d * hidden + i];
    }
  }

  void run() {
    double log_weight[LANES] = {};
    if (job.begin) {
      on_hidden.clear();
      draw_visible(job.levels, 0);
    }
    for (int64_t step = 1; step <= job.steps; ++step) {
      const T *before = job.levels + 4 * (step - 1), *after = before + 4;
      project();
      activate(after);
      if (job.log_weights) {
        const V rise = weigh(before, after);
        for (int n = 0; n < count; ++n) {
          log_weight[n] += rise[n];
          if (job.rises) job.rises[(step - 1) * job.rows + row + n] = rise[n];
        }
      }
      if (step == job.steps && !job.move_last) break;
      draw_hidden(after, uint32_t(step));
      draw_visible(after, uint32_t(step));
    }
    for (int n = 0; n < count; ++n) {
      if (job.log_weights) job.log_weights[row + n] = log_weight[n];
      for (int j = 0; j < visible && job.v; ++j) job.v[(row + n) * visible + j] = v[j][n];
    }
  }

 private:
  // linear_i = w_iᵀv or μ_i w_iᵀv, quadratic_i = (w_iᵀv)²/(2α_i) - ½ v²ᵀΦ_i: the logits of the
  // spikes are b̃_hi + the two times factors of the level.
  void project() {
    on_visible.clear();
    for (int j = 0; j < visible; ++j)
      if (any(v[j])) on_visible.push_back(j);
    std::fill(linear.begin(), linear.end(), V{});
    multiply<T>(v.data(), on_visible, job.weight, hidden, linear.data());
    if (!slabs) return;
    std::fill(quadratic.begin(), quadratic.end(), V{});
    if (job.damping) {
      for (int j = 0; j < visible; ++j) squares[j] = v[j] * v[j] * T(-0.5);
      multiply<T>(squares.data(), on_visible, job.damping_transposed, hidden, quadratic.data());
    }
    for (int i = 0; i < hidden; ++i)
      quadratic[i] += linear[i] * linear[i] * (T(0.5) * variance[i]);
  }

  inline V logit(int i, const T *level) const {
    if (!slabs) return hidden_bias[i] + level[0] * linear[i];
    return hidden_bias[i] + level[0] * level[1] * job.mu[i] * linear[i] +
           level[0] * level[0] * quadratic[i];
  }

  // Logits a of the spikes, and exp(-|a|).
  void activate(const T *level) {
    for (int i = 0; i < hidden; ++i) {
      logits[i] = logit(i, level);
      sizes[i] = exp_of_negative(negative_size(logits[i]));
    }
  }

  // F(v) before less F(v) after, where `activate` was called with what is after.
  V weigh(const T *before, const T *after) const {
    V along{}, base{}, sum{}, factors_before = V{} + 1, factors_after = factors_before;
    for (int j : on_visible) along += v[j] * visible_bias[j];
    for (int j : on_visible)
      if (job.base_bias) base += v[j] * base_bias[j];
    for (int i = 0; i < hidden; ++i) {
      const V a = logit(i, before), b = logits[i];
      sum += (b < 0 ? V{} : b) - (a < 0 ? V{} : a);
      factors_before *= 1 + exp_of_negative(negative_size(a));
      factors_after *= 1 + sizes[i];
      if (i % FACTORS == FACTORS - 1 || i == hidden - 1) {
        sum += log_of_positive(factors_after) - log_of_positive(factors_before);
        factors_before = factors_after = V{} + 1;
      }
    }
    return sum + along * (after[2] - before[2]) + base * (after[3] - before[3]);
  }

  // h | v, and s | v, h where spikes are on; x is what they send through the couplings.
  void draw_hidden(const T *level, uint32_t step) {
    on_hidden.clear();
    for (int start = 0; start < hidden; start += 4) {
      Words words[4];
      V noise[4];
      Int<T> on[4], some{};
      const int end = start + 4 < hidden ? start + 4 : hidden;
      random(start / 4, 4 * step, words);
      for (int i = start; i < end; ++i) {
        on[i - start] = is_on<T>(uniform<T>(words[i - start]), logits[i], sizes[i]);
        some |= on[i - start];
      }
      if (!any(some)) continue;
      if (slabs) random(start / 4, 4 * step + 1, words), normal<T>(words, noise);
      for (int i = start; i < end; ++i) {
        if (!any(on[i - start])) continue;
        on_hidden.push_back(i);
        spikes[i] = on[i - start] ? V{} + level[0] * level[0] : V{};
        V s = V{} + 1;
        if (slabs) {
          s = level[1] * job.mu[i] + level[0] * variance[i] * linear[i] +
              deviation[i] * noise[i - start];
        }
        x[i] = on[i - start] ? s * level[0] : V{};
      }
    }
  }

  // v | h, s.
  void draw_visible(const T *level, uint32_t step) {
    for (int j = 0; j < visible; ++j) field[j] = visible_bias[j] * level[2];
    for (int j = 0; j < visible && job.base_bias; ++j) field[j] += base_bias[j] * level[3];
    multiply<T>(x.data(), on_hidden, job.transposed, visible, field.data());
    if (job.precision) total_precision = precision;
    if (job.damping)
      multiply<T>(spikes.data(), on_hidden, job.damping, visible, total_precision.data());
    for (int start = 0; start < visible; start += 4) {
      Words words[4];
      V noise[4];
      const int end = start + 4 < visible ? start + 4 : visible;
      random(start / 4, 4 * step + 2, words);
      if (job.precision) normal<T>(words, noise);
      for (int j = start; j < end; ++j) {
        if (job.precision) {
          v[j] = field[j] / total_precision[j] + noise[j - start] / root(total_precision[j]);
        } else {
          const V e = exp_of_negative(negative_size(field[j]));
          v[j] = is_on<T>(uniform<T>(words[j - start]), field[j], e) ? V{} + 1 : V{};
        }
      }
    }
  }
};

template <typename T>
void run(const Job<T> &job, int64_t first, int64_t count) {
  for (int64_t row = first; row < first + count; row += LANES)
    Block<T>(job, row, int(std::min<int64_t>(LANES, first + count - row))).run();
}

extern "C" {
void run_float(const Job<float> *job, int64_t first, int64_t count) { run(*job, first, count); }
void run_double(const Job<double> *job, int64_t first, int64_t count) { run(*job, first, count); }
// The words of one chain at one step, for the test against published ones.
void philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
  Words words[4];
  const Random random{Words{} + counter[2], Words{} + counter[3], key[0], key[1]};
  random(counter[0], counter[1], words);
  for (int n = 0; n < 4; ++n) out[n] = words[n][0];
}
}
