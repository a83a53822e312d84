#include "half.h"

#include <algorithm>
#include <cstring>

#include "tile.h"

namespace rowwise {

namespace {

#if defined(__AVX512F__)

typedef std::uint32_t Words __attribute__((vector_size(64)));

// Floats as bfloat16 in the lower half of each word.
ROWWISE_INLINE Words rounded(const float *from) {
#if defined(__AVX512BF16__)
  return (Words)_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(from)));
#else
  const Words bits = (Words)_mm512_loadu_si512(from);
  const Words even = bits + (0x7FFFu + ((bits >> 16) & 1u));
  const __m512 value = (__m512)bits;
  const __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
  return (Words)_mm512_mask_mov_epi32((__m512i)(even >> 16), nan, (__m512i)((bits >> 16) | 0x40u));
#endif
}

ROWWISE_INLINE void transpose_words(const Words in[16], std::uint32_t *out, std::ptrdiff_t stride) {
  __m512i a[16], b[16];
  for (int i = 0; i < 8; i++) {
    a[2 * i] = _mm512_unpacklo_epi32((__m512i)in[2 * i], (__m512i)in[2 * i + 1]);
    a[2 * i + 1] = _mm512_unpackhi_epi32((__m512i)in[2 * i], (__m512i)in[2 * i + 1]);
  }
  for (int i = 0; i < 4; i++)
    for (int k = 0; k < 2; k++) {
      b[4 * i + 2 * k] = _mm512_unpacklo_epi64(a[4 * i + k], a[4 * i + 2 + k]);
      b[4 * i + 2 * k + 1] = _mm512_unpackhi_epi64(a[4 * i + k], a[4 * i + 2 + k]);
    }
  // b[4 i + c] has in its quarter q the rows 4 i .. 4 i + 3 of column 4 q + c.
  for (int c = 0; c < 4; c++) {
    const __m512i low_even = _mm512_shuffle_i32x4(b[c], b[4 + c], 0x88);
    const __m512i low_odd = _mm512_shuffle_i32x4(b[c], b[4 + c], 0xDD);
    const __m512i high_even = _mm512_shuffle_i32x4(b[8 + c], b[12 + c], 0x88);
    const __m512i high_odd = _mm512_shuffle_i32x4(b[8 + c], b[12 + c], 0xDD);
    _mm512_storeu_si512(out + c * stride, _mm512_shuffle_i32x4(low_even, high_even, 0x88));
    _mm512_storeu_si512(out + (8 + c) * stride, _mm512_shuffle_i32x4(low_even, high_even, 0xDD));
    _mm512_storeu_si512(out + (4 + c) * stride, _mm512_shuffle_i32x4(low_odd, high_odd, 0x88));
    _mm512_storeu_si512(out + (12 + c) * stride, _mm512_shuffle_i32x4(low_odd, high_odd, 0xDD));
  }
}

ROWWISE_INLINE void store_halves(Half *to, Words halves) {
  _mm256_storeu_si256((__m256i *)to, _mm512_cvtepi32_epi16((__m512i)halves));
}

#else

struct Words {
  std::uint32_t word[16];
};

ROWWISE_INLINE std::uint32_t rounded(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return bits >> 16 | 0x40u;  // stays a NaN
  return (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
}
ROWWISE_INLINE Words rounded(const float *from) {
  Words words;
  for (int j = 0; j < 16; j++) words.word[j] = rounded(from[j]);
  return words;
}
ROWWISE_INLINE Words operator<<(Words a, int bits) {
  for (auto &word : a.word) word <<= bits;
  return a;
}
ROWWISE_INLINE Words operator|(Words a, const Words &b) {
  for (int j = 0; j < 16; j++) a.word[j] |= b.word[j];
  return a;
}
ROWWISE_INLINE void transpose_words(const Words in[16], std::uint32_t *out, std::ptrdiff_t stride) {
  for (int i = 0; i < 16; i++)
    for (int j = 0; j < 16; j++) out[j * stride + i] = in[i].word[j];
}
ROWWISE_INLINE void store_halves(Half *to, Words halves) {
  for (int j = 0; j < 16; j++) to[j] = (Half)halves.word[j];
}

#endif

ROWWISE_INLINE Words pair(const float *rows) { return rounded(rows) | (rounded(rows + PANEL) << 16); }

}  // namespace

void to_rows(const float *panel, int rows, int which, Half *to) {
  for (int m = 0; m < rows; m++) store_halves(to + m * HALVES + which * PANEL, rounded(panel + m * PANEL));
}

void to_pairs(const float *panel, int rows, std::uint32_t *to) {
  for (int m = 0; m < rows; m += 2) {
    const Words both = pair(panel + m * PANEL);
    std::memcpy(to + m / 2 * PANEL, &both, sizeof both);
  }
}

void to_columns(const float *panel, int rows, std::ptrdiff_t block, Half *to) {
  for (int m = 0; m < rows; m += HALVES) {
    Words pairs[16];
    for (int i = 0; i < 16; i++) pairs[i] = pair(panel + (m + 2 * i) * PANEL);
    transpose_words(pairs, reinterpret_cast<std::uint32_t *>(to + m / HALVES * block), HALVES / 2);
  }
}

// --- the product ------------------------------------------------------------------------------

#if defined(__AMX_BF16__)

// Tiles 0 to 3 hold sums [16 rows][16 columns], 4 and 5 factors from A, 6 and 7 factors from B.
//
// Constant, so that it lies in memory as a whole: GCC takes the instruction to read its first eight
// bytes alone, and would leave out stores to the rest.
struct alignas(64) TileConfiguration {
  std::uint8_t palette = 1, start = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfiguration) == 64);
constexpr TileConfiguration TILES;

// Nor does GCC know what a tile load reads: what was stored before must be in memory.
ROWWISE_INLINE void finish_stores() { __asm__ volatile("" ::: "memory"); }

void half_begin() { _tile_loadconfig(&TILES); }
void half_end() { _tile_release(); }

namespace {

// 16 or 32 rows of one or two panels.
template <int HIGH, int WIDE>
ROWWISE_INLINE void tile(const HalfTerm *terms, int count, int rows, int m0, int panel, float *c) {
  const std::ptrdiff_t c_panel = (std::ptrdiff_t)rows * PANEL;
  float *corner = c + panel * c_panel + m0 * PANEL;
  _tile_loadd(0, corner, 64);
  if constexpr (WIDE == 2) _tile_loadd(1, corner + c_panel, 64);
  if constexpr (HIGH == 2) _tile_loadd(2, corner + 16 * PANEL, 64);
  if constexpr (HIGH == 2 && WIDE == 2) _tile_loadd(3, corner + c_panel + 16 * PANEL, 64);
  for (int t = 0; t < count; t++) {
    const Half *a = terms[t].a + m0 * HALVES;
    const std::uint32_t *b = terms[t].b + panel * terms[t].b_panel;
    const std::uint32_t *next = b + terms[t].b_panel;
    for (int k = 0; k < terms[t].depth; k += HALVES) {
      _tile_loadd(6, b, 64);
      _tile_loadd(4, a, 64);
      _tile_dpbf16ps(0, 4, 6);
      if constexpr (WIDE == 2) {
        _tile_loadd(7, next, 64);
        _tile_dpbf16ps(1, 4, 7);
      }
      if constexpr (HIGH == 2) {
        _tile_loadd(5, a + 16 * HALVES, 64);
        _tile_dpbf16ps(2, 5, 6);
        if constexpr (WIDE == 2) _tile_dpbf16ps(3, 5, 7);
      }
      a += (std::ptrdiff_t)rows * HALVES;
      b += 16 * PANEL;
      next += 16 * PANEL;
    }
  }
  _tile_stored(0, corner, 64);
  if constexpr (WIDE == 2) _tile_stored(1, corner + c_panel, 64);
  if constexpr (HIGH == 2) _tile_stored(2, corner + 16 * PANEL, 64);
  if constexpr (HIGH == 2 && WIDE == 2) _tile_stored(3, corner + c_panel + 16 * PANEL, 64);
}

template <int WIDE>
void panels_of_tiles(const HalfTerm *terms, int count, int rows, int panel, float *c) {
  int m = 0;
  for (; m + 32 <= rows; m += 32) tile<2, WIDE>(terms, count, rows, m, panel, c);
  if (m < rows) tile<1, WIDE>(terms, count, rows, m, panel, c);
}

}  // namespace

void product(const HalfTerm *terms, int count, int rows, int panels, const float *bias, bool add, float *c) {
  for (int j = 0; j < panels; j += 2) {
    const int wide = std::min(2, panels - j);
    // Sums begin at the bias, by way of memory: a tile cannot be filled from registers.
    for (int p = j; !add && p < j + wide; p++) {
      const __m512 start = bias ? _mm512_load_ps(bias + p * PANEL) : _mm512_setzero_ps();
      for (int m = 0; m < rows; m++) _mm512_store_ps(c + ((std::ptrdiff_t)p * rows + m) * PANEL, start);
    }
    finish_stores();
    if (wide == 2)
      panels_of_tiles<2>(terms, count, rows, j, c);
    else
      panels_of_tiles<1>(terms, count, rows, j, c);
  }
}

#else

void half_begin() {}
void half_end() {}

namespace {

constexpr int WIDE = REGISTERS == 32 && LANES == 16 ? 4 : 1;
constexpr int HIGH = REGISTERS == 32 && LANES == 16 ? 4 : std::max(1, 8 / PIECES);

// sums += the two products of a pair. `a` is one pair, for all lanes.
ROWWISE_INLINE Vec add_pair_products(Vec sums, std::uint32_t a, Ints b) {
#if defined(__AVX512BF16__)
  return (Vec)_mm512_dpbf16_ps((__m512)sums, (__m512bh)_mm512_set1_epi32((int)a), (__m512bh)b);
#else
  const Ints pairs = (std::int32_t)a - Ints{};
  const Ints upper = Ints{} + (std::int32_t)0xFFFF0000;
  sums += (Vec)(pairs << 16) * (Vec)(b << 16);
  return sums + (Vec)(pairs & upper) * (Vec)(b & upper);
#endif
}

template <int ROWS, int COUNT>
ROWWISE_INLINE void tile(const HalfTerm *terms, int count, int rows, int m0, int panel, float *c) {
  const std::ptrdiff_t c_panel = (std::ptrdiff_t)rows * PANEL;
  float *corner = c + panel * c_panel + m0 * PANEL;
  Sums<ROWS, COUNT> sums;
  sums.load_from(corner, c_panel);
  for (int t = 0; t < count; t++) {
    const std::uint32_t *a = reinterpret_cast<const std::uint32_t *>(terms[t].a) + m0 * PANEL;
    const std::uint32_t *b = terms[t].b + panel * terms[t].b_panel;
    for (int k = 0; k < terms[t].depth; k += HALVES) {
      for (int p = 0; p < PANEL; p++) {
        Ints row[COUNT][PIECES];
#pragma GCC unroll 8
        for (int j = 0; j < COUNT; j++)
#pragma GCC unroll 4
          for (int v = 0; v < PIECES; v++)
            row[j][v] = *reinterpret_cast<const Ints *>(b + j * terms[t].b_panel + p * PANEL + v * LANES);
        sums.each([&](Vec &sum, int i, int j, int v) __attribute__((always_inline)) {
          sum = add_pair_products(sum, a[i * PANEL + p], row[j][v]);
        });
      }
      a += (std::ptrdiff_t)rows * PANEL;
      b += PANEL * PANEL;
    }
  }
  sums.store_to(corner, c_panel);
}

}  // namespace

void product(const HalfTerm *terms, int count, int rows, int panels, const float *bias, bool add, float *c) {
  static_assert(16 % HIGH == 0, "rows come in sixteens");
  for (int j = 0; j < panels;) {
    const int wide = panels - j >= WIDE ? WIDE : 1;
    for (int p = j; !add && p < j + wide; p++)
      for (int m = 0; m < rows; m++)
        for (int v = 0; v < PIECES; v++) {
          const Vec start = bias ? load(bias + p * PANEL + v * LANES) : Vec{};
          store(c + ((std::ptrdiff_t)p * rows + m) * PANEL + v * LANES, start);
        }
    for (int m = 0; m < rows; m += HIGH)
      wide == WIDE ? tile<HIGH, WIDE>(terms, count, rows, m, j, c) : tile<HIGH, 1>(terms, count, rows, m, j, c);
    j += wide;
  }
}

#endif

}  // namespace rowwise
