// What the compiled passes share: threads, types and elementary functions.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#ifdef __linux__
#include <dlfcn.h>
#endif

namespace {

// ---- Threads: torch's own, by the OpenMP that it has loaded. Others would wait for its to sleep.

typedef void Start(void (*)(void*), void*, unsigned, unsigned);
typedef int Number();

template <typename F>
struct Team {
  const F& work;
  int64_t count;
  Number *number, *size;
  static void run(void* data) {
    const Team& team = *(const Team*)data;
    const int64_t n = team.number(), all = team.size();
    team.work(team.count * n / all, team.count * (n + 1) / all);
  }
};

// Calls `work(begin, end)` for shares of `count`, side by side.
template <typename F>
void share(int64_t threads, int64_t count, const F& work) {
#ifdef __linux__
  static const auto start = (Start*)dlsym(RTLD_DEFAULT, "GOMP_parallel");
  static const auto number = (Number*)dlsym(RTLD_DEFAULT, "omp_get_thread_num");
  static const auto size = (Number*)dlsym(RTLD_DEFAULT, "omp_get_num_threads");
  if (threads > 1 && start && number && size) {
    Team<F> team{work, count, number, size};
    return start(Team<F>::run, &team, threads, 0);
  }
#endif
  work(0, count);
}

// ---- Numbers

struct bfloat16 {
  uint16_t bits;
};

inline float value(float x) { return x; }
inline double value(double x) { return x; }
inline float value(bfloat16 x) {
  uint32_t bits = (uint32_t)x.bits << 16;
  float result;
  std::memcpy(&result, &bits, 4);
  return result;
}
inline void put(float& place, float x) { place = x; }
inline void put(double& place, double x) { place = x; }
inline void put(bfloat16& place, float x) {  // to the nearest, ties to even
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  place.bits = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

inline double exponential(double x) { return std::exp(x); }
inline float exponential(float x) {  // within 2e-7 of its size; written out to be vectorised
  x = x < -87.f ? -87.f : x > 88.f ? 88.f : x;
  float whole = x * 1.44269504f + 12582912.f;  // the last bits are the nearest integer
  int32_t power;
  std::memcpy(&power, &whole, 4);
  whole -= 12582912.f;
  float r = x - whole * 0.693359375f + whole * 2.12194440e-4f, y = 1.9875691500e-4f;
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * r * r + r + 1.f;
  int32_t bits;
  std::memcpy(&bits, &y, 4);
  bits += (int32_t)((uint32_t)power << 23);
  std::memcpy(&y, &bits, 4);
  return y;
}
template <typename S>
inline S sigmoid(S x) {
  return 1 / (1 + exponential(-x));
}
inline double squash(double x) { return std::tanh(x); }
inline float squash(float x) { return 2 * sigmoid(2 * x) - 1; }

inline float logarithm(float x) {  // of positive numbers, by Cephes' polynomial
  int32_t bits;
  std::memcpy(&bits, &x, 4);
  const int32_t exponent = (bits - 0x3f3504f3) >> 23;
  bits -= exponent * (1 << 23);
  float m;
  std::memcpy(&m, &bits, 4);
  m -= 1;
  float p = m * 7.0376836292e-2f - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f, p = p * m - 1.2420140846e-1f, p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f, p = p * m + 2.0000714765e-1f, p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  return m * m * (m * p - 0.5f) + m + exponent * 0.6931471806f;
}

}  // namespace
