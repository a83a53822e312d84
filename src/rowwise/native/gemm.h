// Matrix products on panels.
//
// A matrix [rows, columns] is kept as column panels: [ceil(columns / 16)][rows][16] floats, padded
// with zeros; each row of a panel is one cache line. Activations, weights and their gradients all
// have this one layout, so a product reads both its factors in the order in which they lie, and its
// result can be the next product's factor. Panels are aligned to 64 bytes. No function here
// allocates, and no result overlaps a factor.
#pragma once

#include "simd.h"

namespace rowwise {

constexpr int panels_of(int columns) { return (columns + PANEL - 1) / PANEL; }

// Where element [row, column] of a matrix with `rows` rows lies in its panels.
constexpr std::ptrdiff_t place_in_panels(int rows, int row, int column) {
  return ((std::ptrdiff_t)(column / PANEL) * rows + row) * PANEL + column % PANEL;
}

// One term of a sum of products: A [rows, depth] as panels, times the panels of B [depth, columns].
struct Term {
  const float *a;         // [ceil(depth / 16)][rows][16]
  const float *b;         // [panels][b_rows][16], of which the first `depth` rows are used
  std::ptrdiff_t b_panel; // floats from one panel of B to the next: b_rows * 16
  int depth;              // the columns of A that are used; what pads them is not read
};

// C = bias + Σ A_t B_t over `count` <= 2 terms, or C += Σ A_t B_t where `add`.
//
// C [panels][rows][16]; bias [panels][16] or null for zero.
void product(const Term *terms, int count, int rows, int panels, const float *bias, bool add, float *c);

// C += Σ_t A_tᵀ D_t: the gradient of a weight matrix B from the inputs A and the gradients D of A B.
//
// A_t: [ceil(depth / 16)][rows][16] at a + t a_step; D_t: [panels][rows][16] at d + t d_step;
// C [panels][c_rows][16], its first `depth` rows are added to.
void gradient(const float *a, std::ptrdiff_t a_step, const float *d, std::ptrdiff_t d_step, int steps, int rows,
              int depth, int panels, float *c, int c_rows);

// Bᵀ as panels: to[panel v][row r][16] = B[16 v + lane, r] for B [rows, columns], both multiples of
// 16. `from` [columns / 16][rows][16], `to` [rows / 16][columns][16]; panels [first, last) of `to`.
void transpose(const float *from, int rows, int columns, int first, int last, float *to);

}  // namespace rowwise
