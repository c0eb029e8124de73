// What a step of the scan over time does between its products, each in one pass of the cache.
//
// Names and layouts are those of cgrnn/scan.py; cgrnn/scan_cpu.py calls it. A is what the tape
// holds (bfloat16, float or double), S what is calculated in and what the state is.

#include "common.h"

extern "C" struct Scan {
  int64_t threads, batch, hidden, size;
  // Of the tape, (N, B, ·), contexts one frame more.
  void *gates, *kept, *contexts, *spikes, *latents;
  // From outside, with strides of frames and of sequences.
  const void *logits, *slabs, *uniforms, *d_contexts;
  int64_t logits_by[2], slabs_by[2], uniforms_by[2], d_contexts_by[2];
  // Of one step: the state or its gradient; the products, (B, H + 3R) and (B, 3R) forward,
  // (B, R) backward; the gradients that enter the latter, (B, 3R + H) or (B, 3R).
  void *state, *recurrent, *input, *back;
  const void* bias;
  // Of expected spikes, (N, B, H).
  void *d_latents, *d_logits;
};

namespace {

template <typename T>
inline T* row(const void* base, int64_t n, int64_t b, const int64_t* by) {
  return (T*)base + n * by[0] + b * by[1];
}

template <typename A, typename S>
void draw(const Scan& scan, int64_t n, int64_t begin, int64_t end) {
  const int64_t H = scan.hidden, G = 3 * scan.size, B = scan.batch;
  for (int64_t b = begin; b < end; ++b) {
    const A* __restrict product = (const A*)scan.recurrent + b * (H + G);
    const S* __restrict logits = row<S>(scan.logits, n, b, scan.logits_by);
    const S* __restrict slabs = row<S>(scan.slabs, n, b, scan.slabs_by);
    A* __restrict spikes = (A*)scan.spikes + (n * B + b) * H;
    A* __restrict latents = (A*)scan.latents + (n * B + b) * H;
    if (scan.uniforms) {
      const S* __restrict uniforms = row<S>(scan.uniforms, n, b, scan.uniforms_by);
#pragma omp simd
      for (int64_t i = 0; i < H; ++i) {
        S spike = uniforms[i] < sigmoid(value(product[i]) + logits[i]) ? 1 : 0;
        put(spikes[i], spike);
        put(latents[i], spike * slabs[i]);
      }
    } else {
#pragma omp simd
      for (int64_t i = 0; i < H; ++i) {
        S spike = sigmoid(value(product[i]) + logits[i]);
        put(spikes[i], spike);
        put(latents[i], spike * slabs[i]);
      }
    }
  }
}

// Three parts of a row, R numbers each, that overlap nothing.
#define PARTS(A, r, z, c, start) \
  A *__restrict r = (start), *__restrict z = r + R, *__restrict c = z + R

template <typename A, typename S>
void step(const Scan& scan, int64_t n, int64_t begin, int64_t end) {
  const int64_t H = scan.hidden, R = scan.size, B = scan.batch;
  PARTS(const A, bias_r, bias_z, bias_c, (const A*)scan.bias);
  for (int64_t b = begin; b < end; ++b) {
    PARTS(A, gate_r, gate_z, gate_c, (A*)scan.gates + (n * B + b) * 3 * R);
    PARTS(const A, x_r, x_z, x_c, (const A*)scan.input + b * 3 * R);
    PARTS(const A, y_r, y_z, y_c, (const A*)scan.recurrent + b * (H + 3 * R) + H);
    A* __restrict kept = (A*)scan.kept + (n * B + b) * R;
    A* __restrict next = (A*)scan.contexts + ((n + 1) * B + b) * R;
    S* __restrict state = (S*)scan.state + b * R;
#pragma omp simd
    for (int64_t i = 0; i < R; ++i) {
      S reset = sigmoid(value(gate_r[i]) + value(x_r[i]) + value(y_r[i]) + value(bias_r[i]));
      S update = sigmoid(value(gate_z[i]) + value(x_z[i]) + value(y_z[i]) + value(bias_z[i]));
      S keep = value(y_c[i]) + value(bias_c[i]);
      S candidate = squash(value(gate_c[i]) + value(x_c[i]) + reset * keep);
      S u = candidate + update * (state[i] - candidate);
      put(gate_r[i], reset);
      put(gate_z[i], update);
      put(gate_c[i], candidate);
      put(kept[i], keep);
      state[i] = u;
      put(next[i], u);
    }
  }
}

template <typename A, typename S>
void step_back(const Scan& scan, int64_t n, int64_t begin, int64_t end) {
  const int64_t H = scan.d_logits ? scan.hidden : 0, R = scan.size, B = scan.batch;
  for (int64_t b = begin; b < end; ++b) {
    PARTS(A, gate_r, gate_z, gate_c, (A*)scan.gates + (n * B + b) * 3 * R);
    PARTS(A, back_r, back_z, back_c, (A*)scan.back + b * (3 * R + H));
    A* __restrict kept = (A*)scan.kept + (n * B + b) * R;
    const A* __restrict before = (const A*)scan.contexts + (n * B + b) * R;
    const A* __restrict outside = row<const A>(scan.d_contexts, n, b, scan.d_contexts_by);
    const A* __restrict product = (const A*)scan.recurrent + b * R;
    S* __restrict state = (S*)scan.state + b * R;
#pragma omp simd
    for (int64_t i = 0; i < R; ++i) {
      S reset = value(gate_r[i]), update = value(gate_z[i]), candidate = value(gate_c[i]);
      S du = state[i] + value(product[i]) + value(outside[i]), direct = du * update;
      S d_update = (value(before[i]) - candidate) * direct * (1 - update);
      S d_candidate = (du - direct) * (1 - candidate * candidate);
      S d_kept = d_candidate * reset;
      S d_reset = d_kept * (1 - reset) * value(kept[i]);
      put(gate_r[i], d_reset);
      put(gate_z[i], d_update);
      put(gate_c[i], d_candidate);
      put(kept[i], d_kept);
      put(back_r[i], d_reset);
      put(back_z[i], d_update);
      put(back_c[i], d_kept);
      state[i] = direct;
    }
  }
}

template <typename A, typename S>
void draw_back(const Scan& scan, int64_t n, int64_t begin, int64_t end) {
  const int64_t H = scan.hidden, B = scan.batch, G = 3 * scan.size;
  for (int64_t b = begin; b < end; ++b) {
    const A* __restrict d_latents = (const A*)scan.d_latents + (n * B + b) * H;
    const A* __restrict spikes = (const A*)scan.spikes + (n * B + b) * H;
    const S* __restrict slabs = row<S>(scan.slabs, n, b, scan.slabs_by);
    A* __restrict d_logits = (A*)scan.d_logits + (n * B + b) * H;
    A* __restrict back = (A*)scan.back + b * (G + H) + G;
#pragma omp simd
    for (int64_t i = 0; i < H; ++i) {
      S spike = value(spikes[i]);
      S slope = spike * (1 - spike) * slabs[i] * value(d_latents[i]);
      put(d_logits[i], slope);
      put(back[i], slope);
    }
  }
}

}  // namespace

#define FOR_SCAN_PASS(pass, name, A, S)                                  \
  extern "C" void pass##_##name(const Scan* scan, int64_t n) {           \
    share(scan->threads, scan->batch, [=](int64_t begin, int64_t end) {  \
      pass<A, S>(*scan, n, begin, end);                                  \
    });                                                                  \
  }
#define FOR_SCAN(name, A, S)          \
  FOR_SCAN_PASS(draw, name, A, S)      \
  FOR_SCAN_PASS(step, name, A, S)      \
  FOR_SCAN_PASS(step_back, name, A, S) \
  FOR_SCAN_PASS(draw_back, name, A, S)
FOR_SCAN(bfloat16, bfloat16, float)
FOR_SCAN(float32, float, float)
FOR_SCAN(float64, double, double)

namespace {

// Four rows of four 16-bit numbers, turned within 64-bit words.
inline void turn(uint64_t* x) {
  constexpr uint64_t EVEN = 0x0000ffff0000ffff, LOW = 0x00000000ffffffff;
  uint64_t a = (x[0] & EVEN) | (x[1] & EVEN) << 16, b = (x[0] >> 16 & EVEN) | (x[1] & ~EVEN);
  uint64_t c = (x[2] & EVEN) | (x[3] & EVEN) << 16, d = (x[2] >> 16 & EVEN) | (x[3] & ~EVEN);
  x[0] = (a & LOW) | c << 32, x[1] = (b & LOW) | d << 32;
  x[2] = a >> 32 | (c & ~LOW), x[3] = b >> 32 | (d & ~LOW);
}

}  // namespace

// The transpose of (rows, columns), both contiguous, by tiles whose lines stay in the cache.
extern "C" void transpose_16(int64_t threads, int64_t rows, int64_t columns, const uint16_t* from,
                             uint16_t* to) {
  constexpr int64_t TILE = 32;
  const int64_t whole_rows = rows & ~3, whole_columns = columns & ~3;
  share(threads, (rows + TILE - 1) / TILE, [=](int64_t begin, int64_t end) {
    const int64_t last = end * TILE < rows ? end * TILE : rows;
    for (int64_t r0 = begin * TILE; r0 < last; r0 += TILE)
      for (int64_t c0 = 0; c0 < whole_columns; c0 += TILE)
        for (int64_t c = c0; c < c0 + TILE && c < whole_columns; c += 4)
          for (int64_t r = r0; r < r0 + TILE && r < whole_rows; r += 4) {
            uint64_t x[4];
            for (int k = 0; k < 4; ++k) std::memcpy(&x[k], from + (r + k) * columns + c, 8);
            turn(x);
            for (int k = 0; k < 4; ++k) std::memcpy(to + (c + k) * rows + r, &x[k], 8);
          }
    for (int64_t r = begin * TILE; r < last; ++r)
      for (int64_t c = r < whole_rows ? whole_columns : 0; c < columns; ++c)
        to[c * rows + r] = from[r * columns + c];
  });
}
