// The floors of a loss on a CPU, with nothing of a loss around them: the bare sum of exponentials over the data, and the
// bare read of it.
//
// Built and called by bench_numba.py. Vectors are as wide as the machine's; what comes next is prefetched, without which
// a processor whose own prefetching is weak takes up to four times as long here, and the floor would be none.
#include <cstdint>

#if defined(__AVX512F__)
constexpr int BYTES = 64;
#else
constexpr int BYTES = 32;
#endif
constexpr int LANES = BYTES / 4;
typedef float Floats __attribute__((vector_size(BYTES), aligned(4), may_alias));
typedef int32_t Integers __attribute__((vector_size(BYTES), aligned(4), may_alias));

// The exponential of Cephes, good to an ulp; NaN and infinities are nobody's business here.
static inline Floats exponential(Floats x) {
  const float rounder = 12582912.0f;  // 1.5 * 2^23: what is added to it is rounded to an integer
  x = x < -87.0f ? Floats{} - 87.0f : x;
  const Floats rounded = x * 1.44269504f + rounder, n = rounded - rounder;
  const Floats r = x - n * 0.693359375f + n * 2.12194440e-4f;
  Floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + (r + 1.0f);
  return (Floats)((Integers)p + ((Integers)rounded << 23));
}

extern "C" void sum_exp(const float* x, float* out, int64_t rows, int64_t classes) {
  for (int64_t row = 0; row < rows; row++, x += classes) {
    Floats first{}, second{};
    for (int64_t j = 0; j + 2 * LANES <= classes; j += 2 * LANES) {
      for (int line = 0; line < 2 * BYTES; line += 64) __builtin_prefetch((const char*)(x + j) + 4096 + line);
      first += exponential(*(const Floats*)(x + j) - 15.0f);
      second += exponential(*(const Floats*)(x + j + LANES) - 15.0f);
    }
    first += second;
    out[row] = 0;
    for (int lane = 0; lane < LANES; lane++) out[row] += first[lane];
    for (int64_t j = classes - classes % (2 * LANES); j < classes; j++) out[row] += __builtin_expf(x[j] - 15.0f);
  }
}

extern "C" void read(const char* x, int32_t* out, int64_t bytes) {
  Integers lanes[4] = {};
  for (int64_t at = 0; at + 4 * BYTES <= bytes; at += 4 * BYTES)
    for (int k = 0; k < 4; k++) lanes[k] ^= *(const Integers*)(x + at + k * BYTES);
  lanes[0] ^= lanes[1] ^ lanes[2] ^ lanes[3];
  *out = lanes[0][0];
  for (int lane = 1; lane < LANES; lane++) *out ^= lanes[0][lane];
}
