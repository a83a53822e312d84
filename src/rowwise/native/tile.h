// The block of a product's result that stays in registers while its sums are computed.
#pragma once

#include "simd.h"

namespace rowwise {

// ROWS rows of WIDTH panels, a panel's row in PIECES vectors. Loops over it are unrolled whole, so that
// every vector is a register.
template <int ROWS, int WIDTH>
struct Sums {
  Vec of[ROWS][WIDTH][PIECES];

  // Calls visit(sum, row i, panel j, piece v) for each vector.
  template <class Visit>
  ROWWISE_INLINE void each(const Visit &visit) {
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 8
      for (int j = 0; j < WIDTH; j++)
#pragma GCC unroll 4
        for (int v = 0; v < PIECES; v++) visit(of[i][j][v], i, j, v);
  }

  // c: the block's first element; panels of C lie `c_panel` floats apart.
  ROWWISE_INLINE void load_from(const float *c, std::ptrdiff_t c_panel) {
    each([&](Vec &sum, int i, int j, int v)
             __attribute__((always_inline)) { sum = load(c + j * c_panel + i * PANEL + v * LANES); });
  }
  ROWWISE_INLINE void store_to(float *c, std::ptrdiff_t c_panel) {
    each([&](Vec &sum, int i, int j, int v)
             __attribute__((always_inline)) { store(c + j * c_panel + i * PANEL + v * LANES, sum); });
  }

  // Row i of the block += a[i * a_step] times one row of B: b, its first element; panels of B lie
  // `b_panel` floats apart.
  ROWWISE_INLINE void add(const float *a, int a_step, const float *b, std::ptrdiff_t b_panel) {
    Vec row[WIDTH][PIECES];
#pragma GCC unroll 8
    for (int j = 0; j < WIDTH; j++)
#pragma GCC unroll 4
      for (int v = 0; v < PIECES; v++) row[j][v] = load(b + j * b_panel + v * LANES);
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++) {
      const Vec x = splat(a[i * a_step]);
#pragma GCC unroll 8
      for (int j = 0; j < WIDTH; j++)
#pragma GCC unroll 4
        for (int v = 0; v < PIECES; v++) of[i][j][v] += x * row[j][v];
    }
  }
};

}  // namespace rowwise
