#include "gemm.h"

#include <algorithm>

#include "tile.h"

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

// Calls function<number>() for 1 <= number <= MOST, so that the sizes of tiles are known to the compiler.
template <int MOST, class Function>
ROWWISE_INLINE void with_number(int number, const Function &function) {
  static_assert(MOST <= 6);
  auto call = [&]<int NUMBER>() __attribute__((always_inline)) {
    if constexpr (NUMBER <= MOST) function.template operator()<NUMBER>();
  };
  switch (number) {
    case 1: call.template operator()<1>(); break;
    case 2: call.template operator()<2>(); break;
    case 3: call.template operator()<3>(); break;
    case 4: call.template operator()<4>(); break;
    case 5: call.template operator()<5>(); break;
    default: call.template operator()<6>();
  }
}

// A block of a product: C[m0 + i, j] for i < ROWS over WIDTH panels.
template <int ROWS, int WIDTH>
ROWWISE_INLINE void product_tile(const Term *terms, int count, int rows, int m0, std::ptrdiff_t panel,
                                 const float *bias, bool add, float *c) {
  Sums<ROWS, WIDTH> sums;
  const std::ptrdiff_t c_panel = (std::ptrdiff_t)rows * PANEL;
  c += panel * c_panel + (std::ptrdiff_t)m0 * PANEL;
  if (add)
    sums.load_from(c, c_panel);
  else
    sums.each([&](Vec &sum, int, int j, int v) __attribute__((always_inline)) {
      sum = bias ? load(bias + (panel + j) * PANEL + v * LANES) : Vec{};
    });
  for (int t = 0; t < count; t++) {
    const float *a = terms[t].a + (std::ptrdiff_t)m0 * PANEL;
    const float *b = terms[t].b + panel * terms[t].b_panel;
    const std::ptrdiff_t b_panel = terms[t].b_panel;
    int left = terms[t].depth;
    for (; left >= PANEL; left -= PANEL) {
#pragma GCC unroll 4
      for (int k = 0; k < PANEL; k++) sums.add(a + k, PANEL, b + k * PANEL, b_panel);
      a += c_panel;
      b += PANEL * PANEL;
    }
    for (int k = 0; k < left; k++) sums.add(a + k, PANEL, b + k * PANEL, b_panel);
  }
  sums.store_to(c, c_panel);
}

// WIDTH panels of a product, all rows: these in tiles as equal as can be, since a tile of one or
// two rows at the end would wait for its own sums. Not inlined, or there would be several copies.
template <int WIDTH>
__attribute__((noinline)) void product_panels(const Term *terms, int count, int rows, std::ptrdiff_t panel,
                                              const float *bias, bool add, float *c) {
  constexpr int most = tallest(WIDTH);
  const int tiles = (rows + most - 1) / most;
  int m = 0;
  for (int i = 0; i < tiles; i++) {
    const int height = (rows - m) / (tiles - i);
    with_number<most>(height, [&]<int ROWS>() __attribute__((always_inline)) {
      product_tile<ROWS, WIDTH>(terms, count, rows, m, panel, bias, add, c);
    });
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
      with_number<WIDEST>(w, [&]<int WIDTH>() __attribute__((always_inline)) {
        if constexpr (WIDTH != 3 || LANES == 16) product_panels<WIDTH>(near, gathered, rows, j, bias, again, c);
      });
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
  Sums<ROWS, WIDTH> sums;
  sums.load_from(c, c_panel);
  for (int t = 0; t < steps; t++) {
    const float *x = a + t * a_step, *y = d + t * d_step;
#pragma GCC unroll 4
    for (int m = 0; m < rows; m++) sums.add(x + m * PANEL, 1, y + m * PANEL, d_panel);
  }
  sums.store_to(c, c_panel);
}

}  // namespace

void gradient(const float *a, std::ptrdiff_t a_step, const float *d, std::ptrdiff_t d_step, int steps, int rows,
              int depth, int panels, float *c, int c_rows) {
  constexpr int width = LANES == 16 ? 4 : 1;
  const std::ptrdiff_t c_panel = (std::ptrdiff_t)c_rows * PANEL, d_panel = (std::ptrdiff_t)rows * PANEL;
  for (int j = 0; j < panels;) {
    const int w = std::min(width, panels - j);
    for (int k = 0; k < depth;) {
      const int panel_left = std::min(PANEL - k % PANEL, depth - k);
      const int tiles = (panel_left + tallest(width) - 1) / tallest(width);
      const int height = (panel_left + tiles - 1) / tiles;
      const float *x = a + (std::ptrdiff_t)(k / PANEL) * rows * PANEL + k % PANEL;
      with_number<width>(w, [&]<int WIDTH>() __attribute__((always_inline)) {
        with_number<tallest(width)>(height, [&]<int ROWS>() __attribute__((always_inline)) {
          gradient_tile<ROWS, WIDTH>(x, a_step, d + j * d_panel, d_step, steps, rows, d_panel,
                                     c + j * c_panel + (std::ptrdiff_t)k * PANEL, c_panel);
        });
      });
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
