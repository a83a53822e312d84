// Products of bfloat16 factors with sums in float32, for processors that multiply those faster.
//
// A bfloat16 is the upper half of a float32, rounded to nearest even. Three forms, all of 64-byte
// rows, so that the geometry is that of the panels in gemm.h:
//   rows     A [rows, depth]: [ceil(depth / 32)][rows][32]. What a tile of 16 rows holds is contiguous.
//   pairs    B [depth, columns]: [ceil(columns / 16)][depth / 2][16][2], two consecutive rows of B
//            interleaved, as the dot products of AVX512-BF16 and the tiles of AMX read them.
//   columns  Aᵀ in the form `rows`, for a sum over the batch: [rows / 32][columns][32].
// With AMX or AVX512-BF16 their instructions are used, else float32 arithmetic on the same rounded
// factors: other speed, the same meaning.
#pragma once

#include "simd.h"

namespace rowwise {

typedef std::uint16_t Half;
constexpr int HALVES = 32;  // in a row of 64 bytes

constexpr int half_panels_of(int columns) { return (columns + HALVES - 1) / HALVES; }

struct HalfTerm {
  const Half *a;           // form `rows`: [ceil(depth / 32)][rows][32]
  const std::uint32_t *b;  // form `pairs`: [panels][..][16]
  std::ptrdiff_t b_panel;  // pairs from one panel of B to the next, a multiple of 16 * 16
  int depth;               // is taken as the next multiple of 32; what pads both factors is zero
};

// C = bias + Σ A_t B_t, or C += Σ A_t B_t where `add`, over any number of terms.
// C [panels][rows][16] float32; bias [panels][16] or null for zero; rows a multiple of 16.
void product(const HalfTerm *terms, int count, int rows, int panels, const float *bias, bool add, float *c);

// A panel [rows][16] of floats into columns `which` * 16 of the form `rows`; `to` is the first of 32.
void to_rows(const float *panel, int rows, int which, Half *to);

// A panel [rows][16] of floats, rows even, in the form `pairs`: [rows / 2][16].
void to_pairs(const float *panel, int rows, std::uint32_t *to);

// A panel [rows][16] of floats, rows a multiple of 32, in the form `columns`: 16 rows of 32 in each of
// the blocks [rows / 32], which lie `block` halves apart.
void to_columns(const float *panel, int rows, std::ptrdiff_t block, Half *to);

// To be called once by each thread before `product`, and after its last one.
void half_begin();
void half_end();

}  // namespace rowwise
