#include "gemm.h"

#include <algorithm>

namespace rowwise {

namespace {

// A Tile is a block of the result that stays in registers: ROWS rows of WIDTH panels. It is as
// large as the registers allow, beside one row of B and one broadcast element of A.
constexpr int ACCUMULATORS = REGISTERS == 32 ? 24 : 12;
constexpr int WIDEST = 4;
constexpr int tallest(int width) { return std::max(1, std::min(6, ACCUMULATORS / (width * PIECES))); }

// How many panels one tile spans: many where rows are few, so that enough sums are under way to
// hide the latency of an addition.
constexpr int width_for(int rows) {
  int width = WIDEST;
  if (LANES == 16) return width;
  while (width > 1 && tallest(width) < std::min(rows, tallest(1))) width /= 2;
  return width;
}

// A block of a product: C[m0 + i, j] for i < ROWS over WIDTH panels.
template <int ROWS, int WIDTH>
ROWWISE_INLINE void product_tile(const Term *terms, int count, int rows, int m0, std::ptrdiff_t panel,
                                 const float *bias, bool add, float *c) {
  Vec sums[ROWS][WIDTH][PIECES];
  const std::ptrdiff_t c_panel = (std::ptrdiff_t)rows * PANEL;
  c += panel * c_panel + (std::ptrdiff_t)m0 * PANEL;
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 8
    for (int j = 0; j < WIDTH; j++)
#pragma GCC unroll 4
      for (int v = 0; v < PIECES; v++) {
        if (add)
          sums[i][j][v] = load(c + j * c_panel + i * PANEL + v * LANES);
        else
          sums[i][j][v] = bias ? load(bias + (panel + j) * PANEL + v * LANES) : Vec{};
      }
  for (int t = 0; t < count; t++) {
    const float *a = terms[t].a + (std::ptrdiff_t)m0 * PANEL;
    const float *b = terms[t].b + panel * terms[t].b_panel;
    const std::ptrdiff_t b_panel = terms[t].b_panel;
    auto step = [&](int k) __attribute__((always_inline)) {
      Vec row[WIDTH][PIECES];
#pragma GCC unroll 8
      for (int j = 0; j < WIDTH; j++)
#pragma GCC unroll 4
        for (int v = 0; v < PIECES; v++) row[j][v] = load(b + j * b_panel + k * PANEL + v * LANES);
#pragma GCC unroll 8
      for (int i = 0; i < ROWS; i++) {
        Vec x = splat(a[i * PANEL + k]);
#pragma GCC unroll 8
        for (int j = 0; j < WIDTH; j++)
#pragma GCC unroll 4
          for (int v = 0; v < PIECES; v++) sums[i][j][v] += x * row[j][v];
      }
    };
    int left = terms[t].depth;
    for (; left >= PANEL; left -= PANEL) {
#pragma GCC unroll 4
      for (int k = 0; k < PANEL; k++) step(k);
      a += c_panel;
      b += PANEL * PANEL;
    }
    for (int k = 0; k < left; k++) step(k);
  }
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 8
    for (int j = 0; j < WIDTH; j++)
#pragma GCC unroll 4
      for (int v = 0; v < PIECES; v++)
        store(c + j * c_panel + i * PANEL + v * LANES, sums[i][j][v]);
}

// WIDTH panels of a product, all rows: these in tiles as equal as can be, since a tile of one or
// two rows at the end would wait for its own sums.
template <int WIDTH>
inline void product_panels(const Term *terms, int count, int rows, std::ptrdiff_t panel,
                           const float *bias, bool add, float *c) {
  constexpr int most = tallest(WIDTH);
  const int tiles = (rows + most - 1) / most;
  int m = 0;
  for (int i = 0; i < tiles; i++) {
    const int height = (rows - m) / (tiles - i);
    auto tile = [&]<int ROWS>() {
      if constexpr (ROWS <= most)
        product_tile<ROWS, WIDTH>(terms, count, rows, m, panel, bias, add, c);
    };
    switch (height) {
      case 1: tile.template operator()<1>(); break;
      case 2: tile.template operator()<2>(); break;
      case 3: tile.template operator()<3>(); break;
      case 4: tile.template operator()<4>(); break;
      case 5: tile.template operator()<5>(); break;
      default: tile.template operator()<6>();
    }
    m += height;
  }
}

}  // namespace

// The depth is taken in pieces whose part of B stays in the first-level cache while all rows pass
// over it.
void product(const Term *terms, int count, int rows, int panels, const float *bias, bool add, float *c) {
  constexpr int NEAR = 320 * 64;  // bytes of B that the first-level cache keeps beside the rest
  const int width = width_for(rows);
  const int longest = std::max(64, NEAR / 64 / (LANES == 16 ? 2 : 1) / (rows > 6 ? width : 1));
  for (int j = 0; j < panels;) {
    const int w = std::min(width, panels - j) == 3 && LANES != 16 ? 2 : std::min(width, panels - j);
    Term near[2];
    int gathered = 0, depth = 0;
    bool again = add;
    auto flush = [&] {
      switch (w) {
        case 1: product_panels<1>(near, gathered, rows, j, bias, again, c); break;
        case 2: product_panels<2>(near, gathered, rows, j, bias, again, c); break;
        case 3: product_panels<3>(near, gathered, rows, j, bias, again, c); break;
        default: product_panels<4>(near, gathered, rows, j, bias, again, c);
      }
      gathered = depth = 0;
      again = true;
    };
    for (int t = 0; t < count; t++) {
      Term rest = terms[t];
      while (rest.depth > 0) {
        const int room = (longest - depth) / PANEL * PANEL;
        if (gathered == 2 || room < PANEL) {
          flush();
          continue;
        }
        Term part = rest;
        part.depth = std::min(rest.depth, room);
        near[gathered++] = part;
        depth += part.depth;
        rest.a += (std::ptrdiff_t)panels_of(part.depth) * rows * PANEL;
        rest.b += (std::ptrdiff_t)part.depth * PANEL;
        rest.depth -= part.depth;
      }
    }
    if (gathered || !again) flush();
    j += w;
  }
}

namespace {

// A block of a weight gradient: C[k0 + i, j] += Σ over steps and rows of A[m, k0 + i] D[m, j].
template <int ROWS, int WIDTH>
ROWWISE_INLINE void gradient_tile(const float *a, std::ptrdiff_t a_step, const float *d,
                                  std::ptrdiff_t d_step, int steps, int rows, std::ptrdiff_t d_panel,
                                  float *c, std::ptrdiff_t c_panel) {
  Vec sums[ROWS][WIDTH][PIECES];
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 8
    for (int j = 0; j < WIDTH; j++)
#pragma GCC unroll 4
      for (int v = 0; v < PIECES; v++) sums[i][j][v] = load(c + j * c_panel + i * PANEL + v * LANES);
  for (int t = 0; t < steps; t++) {
    const float *x = a + t * a_step, *y = d + t * d_step;
#pragma GCC unroll 4
    for (int m = 0; m < rows; m++) {
      Vec row[WIDTH][PIECES];
#pragma GCC unroll 8
      for (int j = 0; j < WIDTH; j++)
#pragma GCC unroll 4
        for (int v = 0; v < PIECES; v++) row[j][v] = load(y + j * d_panel + m * PANEL + v * LANES);
#pragma GCC unroll 8
      for (int i = 0; i < ROWS; i++) {
        Vec left = splat(x[m * PANEL + i]);
#pragma GCC unroll 8
        for (int j = 0; j < WIDTH; j++)
#pragma GCC unroll 4
          for (int v = 0; v < PIECES; v++) sums[i][j][v] += left * row[j][v];
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 8
    for (int j = 0; j < WIDTH; j++)
#pragma GCC unroll 4
      for (int v = 0; v < PIECES; v++) store(c + j * c_panel + i * PANEL + v * LANES, sums[i][j][v]);
}

}  // namespace

void gradient(const float *a, std::ptrdiff_t a_step, const float *d, std::ptrdiff_t d_step,
                     int steps, int rows, int depth, int panels, float *c, int c_rows) {
  constexpr int width = LANES == 16 ? 4 : 1;
  const std::ptrdiff_t c_panel = (std::ptrdiff_t)c_rows * PANEL, d_panel = (std::ptrdiff_t)rows * PANEL;
  for (int j = 0; j < panels;) {
    const int w = std::min(width, panels - j);
    for (int k = 0; k < depth;) {
      const int panel_left = std::min(PANEL - k % PANEL, depth - k);
      const int tiles = (panel_left + tallest(width) - 1) / tallest(width);
      const int height = (panel_left + tiles - 1) / tiles;
      const float *x = a + (std::ptrdiff_t)(k / PANEL) * rows * PANEL + k % PANEL;
      auto tile = [&]<int ROWS, int WIDTH>() {
        gradient_tile<ROWS, WIDTH>(x, a_step, d + j * d_panel, d_step, steps, rows, d_panel,
                                   c + j * c_panel + (std::ptrdiff_t)k * PANEL, c_panel);
      };
      auto rows_of = [&]<int ROWS>() {
        switch (w) {
          case 1: tile.template operator()<ROWS, 1>(); break;
          case 2: if constexpr (width > 1) tile.template operator()<ROWS, 2>(); break;
          case 3: if constexpr (width > 1) tile.template operator()<ROWS, 3>(); break;
          default: if constexpr (width > 1) tile.template operator()<ROWS, 4>();
        }
      };
      switch (height) {
        case 1: rows_of.template operator()<1>(); break;
        case 2: rows_of.template operator()<2>(); break;
        case 3: rows_of.template operator()<3>(); break;
        case 4: rows_of.template operator()<4>(); break;
        case 5: rows_of.template operator()<5>(); break;
        default: rows_of.template operator()<6>();
      }
      k += height;
    }
    j += w;
  }
}

void transpose(const float *from, int rows, int columns, int first, int last, float *to) {
  for (int v = first; v < last; v++)
    for (int p = 0; p < columns / PANEL; p++) {
      const float *block = from + (std::ptrdiff_t)p * rows * PANEL + (std::ptrdiff_t)v * PANEL * PANEL;
      float *out = to + (std::ptrdiff_t)v * columns * PANEL + (std::ptrdiff_t)p * PANEL * PANEL;
      for (int i = 0; i < PANEL; i++)
        for (int j = 0; j < PANEL; j++) out[j * PANEL + i] = block[i * PANEL + j];
    }
}

}  // namespace rowwise
