// Σ_i softplus(c_i + m_i x_i + k_i x_i²) and its gradients, each in one pass of the cache.
//
// x is (samples, rows, units), c (rows, units), m and k (units); cgrnn/layers/softplus.py calls it.

#include "common.h"

#include <vector>

namespace {

constexpr int64_t FACTORS = 96;  // of a product, each at most 2: still a float

struct Sums {
  int64_t threads, samples, rows, units;
  const void *x, *c, *m, *k, *d_total;
  void *total, *d_x, *d_c, *d_m, *d_k;
};

template <typename T>
void sums(const Sums& given, int64_t begin, int64_t end) {
  const int64_t units = given.units;
  const T *__restrict m = (const T*)given.m, *__restrict k = (const T*)given.k;
  for (int64_t n = begin; n < end; ++n) {
    const T* __restrict x = (const T*)given.x + n * units;
    const T* __restrict c = (const T*)given.c + n % given.rows * units;
    T total = 0;
    for (int64_t first = 0; first < units; first += FACTORS) {
      const int64_t last = first + FACTORS < units ? first + FACTORS : units;
      T positive = 0, product = 1;
#pragma omp simd reduction(+ : positive) reduction(* : product)
      for (int64_t i = first; i < last; ++i) {
        T a = c[i] + x[i] * (m[i] + k[i] * x[i]);
        positive += a > 0 ? a : 0;
        product *= 1 + exponential(a > 0 ? -a : a);
      }
      total += positive + std::log(product);
    }
    ((T*)given.total)[n] = total;
  }
}

// `d_c`, `d_m` and `d_k` are added to, the latter two a row of each for every share.
template <typename T>
void gradients(const Sums& given, int64_t begin, int64_t end, T* __restrict d_m,
               T* __restrict d_k) {
  const int64_t units = given.units;
  const T *__restrict m = (const T*)given.m, *__restrict k = (const T*)given.k;
  for (int64_t row = begin; row < end; ++row) {
    const T* __restrict c = (const T*)given.c + row * units;
    T* __restrict d_c = (T*)given.d_c + row * units;
    for (int64_t n = row; n < given.samples * given.rows; n += given.rows) {
      const T* __restrict x = (const T*)given.x + n * units;
      T* __restrict d_x = (T*)given.d_x + n * units;
      const T d = ((const T*)given.d_total)[n];
#pragma omp simd
      for (int64_t i = 0; i < units; ++i) {
        T slope = m[i] + k[i] * x[i];
        T on = d / (1 + exponential(-(c[i] + x[i] * slope)));
        d_x[i] = on * (slope + k[i] * x[i]);
        d_c[i] += on;
        d_m[i] += on * x[i];
        d_k[i] += on * x[i] * x[i];
      }
    }
  }
}

constexpr int64_t SHARES = 64;  // of rows, summed in order: the same whatever the threads

template <typename T>
void all_gradients(const Sums& given) {
  std::vector<T> parts(2 * SHARES * given.units);
  share(given.threads, SHARES, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      T* d_m = parts.data() + 2 * part * given.units;
      gradients<T>(given, given.rows * part / SHARES, given.rows * (part + 1) / SHARES, d_m,
                   d_m + given.units);
    }
  });
  for (int64_t part = 0; part < SHARES; ++part)
    for (int64_t i = 0; i < given.units; ++i) {
      ((T*)given.d_m)[i] += parts[2 * part * given.units + i];
      ((T*)given.d_k)[i] += parts[(2 * part + 1) * given.units + i];
    }
}

}  // namespace

#define FOR_SUMS(name, T)                                                                     \
  extern "C" void sums_##name(const Sums* given) {                                            \
    share(given->threads, given->samples * given->rows,                                       \
          [=](int64_t begin, int64_t end) { sums<T>(*given, begin, end); });                  \
  }                                                                                           \
  extern "C" void gradients_##name(const Sums* given) { all_gradients<T>(*given); }
FOR_SUMS(float32, float)
FOR_SUMS(float64, double)
