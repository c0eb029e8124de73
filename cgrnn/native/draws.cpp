// Random numbers: Philox4x32-10 (Salmon et al. 2011), counted, so that threads share them out.
//
// cgrnn/draws.py calls it.

#include "common.h"

namespace {

constexpr int LANES = 16, NUMBERS = 4 * LANES;  // of a block

// Lane `n` of a block has four words of counter `block · LANES + n`.
inline void philox(uint64_t seed, uint64_t block, uint32_t w[4][LANES]) {
#pragma omp simd
  for (int n = 0; n < LANES; ++n) {
    const uint64_t counter = block * LANES + n;
    uint32_t a = (uint32_t)counter, b = counter >> 32, c = 0, d = 0;
    uint32_t k = (uint32_t)seed, l = seed >> 32;
    for (int round = 0; round < 10; ++round) {
      const uint64_t p = (uint64_t)a * 0xD2511F53u, q = (uint64_t)c * 0xCD9E8D57u;
      a = (uint32_t)(q >> 32) ^ b ^ k, b = (uint32_t)q;
      c = (uint32_t)(p >> 32) ^ d ^ l, d = (uint32_t)p;
      k += 0x9E3779B9u, l += 0xBB67AE85u;
    }
    w[0][n] = a, w[1][n] = b, w[2][n] = c, w[3][n] = d;
  }
}

inline void uniform(uint64_t seed, uint64_t block, float out[NUMBERS]) {
  uint32_t w[4][LANES];
  philox(seed, block, w);
  for (int k = 0; k < 4; ++k)
#pragma omp simd
    for (int n = 0; n < LANES; ++n)
      out[k * LANES + n] = ((int32_t)(w[k][n] >> 8) + 0.5f) * (1.f / 16777216);
}

inline void normal(uint64_t seed, uint64_t block, float out[NUMBERS]) {  // Box & Muller
  uint32_t w[4][LANES];
  philox(seed, block, w);
  for (int k = 0; k < 4; k += 2)
#pragma omp simd
    for (int n = 0; n < LANES; ++n) {
      // 31 bits, so that the conversion is one instruction.
      const float u = ((int32_t)(w[k][n] >> 1) + 0.5f) * (1.f / 2147483648.f);
      const float radius = std::sqrt(-2 * logarithm(u < 1 ? u : 1));
      // Two bits say the quarter of the circle, the others how far from its middle.
      const uint32_t turn = w[k + 1][n];
      const float t = (int32_t)(turn << 2) * 3.6572952e-10f, t2 = t * t;
      const float s3 = (8.3321608736e-3f - t2 * 1.9515295891e-4f) * t2 - 1.6666654611e-1f;
      const float c4 = (2.4433157118e-5f * t2 - 1.3887316255e-3f) * t2 + 4.1666645683e-2f;
      const float s = t + t * t2 * s3, c = t2 * t2 * c4 - 0.5f * t2 + 1;
      const bool swap = turn >> 30 & 1;
      const float side = turn >> 31 ? -radius : radius;
      out[k * LANES + n] = side * (swap ? s : c);
      out[(k + 1) * LANES + n] = side * (swap ? c : s);
    }
}

template <typename F>
void fill(int64_t threads, int64_t count, float* out, const F& block) {
  share(threads, (count + NUMBERS - 1) / NUMBERS, [=](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const int64_t rest = count - n * NUMBERS;
      if (rest >= NUMBERS) {
        block(n, out + n * NUMBERS);
      } else {
        float last[NUMBERS];
        block(n, last);
        std::memcpy(out + n * NUMBERS, last, rest * sizeof(float));
      }
    }
  });
}

}  // namespace

extern "C" void uniforms(int64_t threads, int64_t seed, int64_t count, float* out) {
  fill(threads, count, out, [=](int64_t n, float* place) { uniform(seed, n, place); });
}
extern "C" void normals(int64_t threads, int64_t seed, int64_t count, float* out) {
  fill(threads, count, out, [=](int64_t n, float* place) { normal(seed, n, place); });
}
