// Vectors of the processor path that this file is compiled for, and the functions of a cell on them.
//
// Written with the compiler's own vector types, so that one source serves every processor: LANES
// is 16 with AVX-512, 8 with AVX, else 4. A matrix row is taken in pieces of PANEL = 16 floats, one
// cache line, whatever LANES is.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace rowwise {

#if defined(__AVX512F__)
constexpr int LANES = 16;
constexpr int REGISTERS = 32;
#elif defined(__AVX__)
constexpr int LANES = 8;
constexpr int REGISTERS = 16;
#elif defined(__aarch64__)
constexpr int LANES = 4;
constexpr int REGISTERS = 32;
#else
constexpr int LANES = 4;
constexpr int REGISTERS = 16;
#endif

constexpr int PANEL = 16;               // floats: the width of a column panel, one cache line
constexpr int PIECES = PANEL / LANES;   // vectors in a panel's row
constexpr std::size_t LINE = 64;        // bytes: every buffer starts on such a boundary

typedef float Vec __attribute__((vector_size(LANES * 4)));
typedef std::int32_t Ints __attribute__((vector_size(LANES * 4)));
typedef std::uint32_t Bits __attribute__((vector_size(LANES * 4)));  // whose sums may overflow

#define ROWWISE_INLINE inline __attribute__((always_inline))

// `p` is aligned to LANES floats.
ROWWISE_INLINE Vec load(const float *p) { return *reinterpret_cast<const Vec *>(p); }
ROWWISE_INLINE void store(float *p, Vec v) { *reinterpret_cast<Vec *>(p) = v; }
// x - 0 is x for every x, which x + 0 is not: so this is one broadcast, and no addition.
ROWWISE_INLINE Vec splat(float x) { return x - Vec{}; }

// A NaN stays a NaN in all of these, so that a diverged training is seen and not hidden.
ROWWISE_INLINE Vec at_least(Vec x, float low) { return x < low ? splat(low) : x; }
ROWWISE_INLINE Vec at_most(Vec x, float high) { return x > high ? splat(high) : x; }
ROWWISE_INLINE Vec between(Vec x, float low, float high) { return at_most(at_least(x, low), high); }

// One instruction, which compilers find by themselves.
ROWWISE_INLINE Vec square_root(Vec x) {
  Vec y;
  for (int i = 0; i < LANES; i++) y[i] = __builtin_sqrtf(x[i]);
  return y;
}

ROWWISE_INLINE float sum(Vec x) {
  float total = 0;
  for (int i = 0; i < LANES; i++) total += x[i];
  return total;
}

// 2ⁿ for the whole number n that was rounded by adding 1.5·2²³, -126 <= n <= 127.
ROWWISE_INLINE Vec power_of_two(Vec shifted) { return (Vec)(((Bits)shifted << 23) + 0x3F800000u); }

// e^x within 2e-7 relative, for x clamped to ±87: x = n ln 2 + r, a polynomial in r of least largest
// relative error on |r| <= ln 2 / 2, times 2ⁿ. Rounding n by adding 1.5·2²³ holds only without
// -ffast-math.
ROWWISE_INLINE Vec exponential(Vec x) {
  x = between(x, -87.0f, 87.0f);
  const float magic = 12582912.0f;
  Vec shifted = x * 1.44269504f + magic;
  Vec n = shifted - magic;
  Vec r = x - n * 0.693359375f;  // ln 2 in two parts (Cody & Waite 1980)
  r = r + n * 2.12194440e-4f;
  Vec p = r * 1.38368456e-3f + 8.37481581e-3f;
  p = p * r + 4.16682251e-2f;
  p = p * r + 1.66664198e-1f;
  p = p * r + 4.99999911e-1f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return p * power_of_two(shifted);
}

ROWWISE_INLINE Vec sigmoid(Vec x) { return 1.0f / (1.0f + exponential(-x)); }

// x P(x²) / Q(x²) of least largest relative error on |x| <= 9, beyond which tanh is 1 in float32;
// within 4e-7.
ROWWISE_INLINE Vec hyperbolic_tangent(Vec x) {
  x = between(x, -9.0f, 9.0f);
  Vec s = x * x;
  Vec p = s * 1.33546934e-8f + 2.06091081e-5f;
  p = p * s + 3.49558983e-3f;
  p = p * s + 1.33810267e-1f;
  p = p * s + 1.0f;
  Vec q = s * 7.77657249e-7f + 3.28563765e-4f;
  q = q * s + 2.58769896e-2f;
  q = q * s + 4.67143416e-1f;
  q = q * s + 1.0f;
  return x * p / q;
}

// 1 / x, within 1e-4 where that is quicker.
ROWWISE_INLINE Vec quick_reciprocal(Vec x) {
#if defined(__AVX512F__)
  return (Vec)_mm512_rcp14_ps((__m512)x);
#else
  return 1.0f / x;
#endif
}

// Sigmoid and tanh within 2e-4, beside products of bfloat16, which are no better than 4e-3.
ROWWISE_INLINE Vec quick_sigmoid(Vec x) {
  const Vec y = between(x, -87.0f, 87.0f) * -1.44269504f;
  const float magic = 12582912.0f;
  const Vec shifted = y + magic;
  const Vec r = y - (shifted - magic);
  Vec p = r * 5.51716648e-2f + 2.42611125e-1f;
  p = p * r + 6.93260968e-1f;
  p = p * r + 9.99928057e-1f;
  return quick_reciprocal(1.0f + p * power_of_two(shifted));
}
ROWWISE_INLINE Vec quick_tanh(Vec x) {
  x = between(x, -5.0f, 5.0f);
  const Vec s = x * x;
  const Vec p = (s * 6.70562207e-4f + 1.02417603e-1f) * s + 9.99948025e-1f;
  const Vec q = (s * 1.28198573e-2f + 4.35432404e-1f) * s + 1.0f;
  return x * p * quick_reciprocal(q);
}

// An activation and its slope, the slope from y = act(z). Each is a type, so that the loops over a
// layer are compiled once for each of them and no choice is left inside.
struct Tanh {
  static ROWWISE_INLINE Vec of(Vec z) { return hyperbolic_tangent(z); }
  static ROWWISE_INLINE Vec scaled_by_slope(Vec gradient, Vec y) { return gradient * (1.0f - y * y); }
};
struct Relu {
  static ROWWISE_INLINE Vec of(Vec z) { return at_least(z, 0.0f); }
  static ROWWISE_INLINE Vec scaled_by_slope(Vec gradient, Vec y) {
    return (Vec)((Ints)gradient & (Ints)(y > 0.0f));
  }
};
struct Sigmoid {
  static ROWWISE_INLINE Vec of(Vec z) { return sigmoid(z); }
  static ROWWISE_INLINE Vec scaled_by_slope(Vec gradient, Vec y) { return gradient * (y * (1.0f - y)); }
};
// The same within 2e-4.
struct QuickTanh : Tanh {
  static ROWWISE_INLINE Vec of(Vec z) { return quick_tanh(z); }
};
struct QuickSigmoid : Sigmoid {
  static ROWWISE_INLINE Vec of(Vec z) { return quick_sigmoid(z); }
};
struct Linear {
  static ROWWISE_INLINE Vec of(Vec z) { return z; }
  static ROWWISE_INLINE Vec scaled_by_slope(Vec gradient, Vec) { return gradient; }
};

}  // namespace rowwise
