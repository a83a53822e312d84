// half.h: the forms of bfloat16 factors, and their products, against double precision.
#include <bit>
#include <cmath>

#include "check.h"
#include "gemm.h"
#include "half.h"

using namespace rowwise;
using check::Floats;
using check::Guarded;

namespace {

// To nearest, ties to even (IEEE 754); a NaN stays one.
Half nearest(float x) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  if (std::isnan(x)) return (Half)(bits >> 16 | 0x40);
  return (Half)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
double value(Half half) { return std::bit_cast<float>((std::uint32_t)half << 16); }

// Instructions for bfloat16 take what is below the normal floats for zero.
void same(Half got, float from, const char *form) {
  const Half expected = nearest(from);
  const bool small = std::fabs(from) < 0x1p-125;
  const bool held = got == expected || (small && std::fabs(value(got)) <= 0x1p-125) || (std::isnan(from) && std::isnan(value(got)));
  check::that(held, [&] { return check::text("%s: %.9g (%08x) became %04x, not %04x", form, from, std::bit_cast<std::uint32_t>(from), got, expected); });
}

Floats panel_of(int rows, check::Random &random) {
  Floats panel((std::size_t)rows * PANEL);
  for (float &x : panel) x = random.below(3) ? random.within(3) : std::bit_cast<float>((std::uint32_t)random.word());
  // Halfway between two: to the even one, up or down; the largest; zeros, infinities and NaN.
  const std::uint32_t odd[] = {0x3F808000, 0x3F818000, 0x3F807FFF, 0x3F808001, 0x7F7FFFFF, 0, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001};
  for (std::size_t i = 0; i < std::size(odd) && i < panel.size(); i++) panel[i] = std::bit_cast<float>(odd[i]);
  return panel;
}

void forms() {
  check::Random random(61);
  for (int rows = 32; rows <= 96; rows += 32) {
    const Floats panel = panel_of(rows, random);
    auto at = [&](int m, int j) { return panel[(std::size_t)m * PANEL + j]; };
    for (int which : {0, 1}) {
      const Guarded<Half> to((std::size_t)rows * HALVES, 0x1234);
      to_rows(panel.data(), rows, which, to.data());
      for (int m = 0; m < rows; m++)
        for (int j = 0; j < PANEL; j++) {
          same(to[m * HALVES + which * PANEL + j], at(m, j), "rows");
          check::that(to[m * HALVES + (1 - which) * PANEL + j] == 0x1234, "the other half of a row is left alone");
        }
    }
    const Guarded<std::uint32_t> pairs((std::size_t)rows / 2 * PANEL);
    to_pairs(panel.data(), rows, pairs.data());
    for (int m = 0; m < rows; m++)
      for (int j = 0; j < PANEL; j++) same((Half)(pairs[m / 2 * PANEL + j] >> (m % 2 * 16)), at(m, j), "pairs");
    const std::ptrdiff_t block = 3 * PANEL * HALVES;  // as for a matrix of three panels
    const Guarded<Half> columns((std::size_t)(rows / HALVES - 1) * block + PANEL * HALVES);
    to_columns(panel.data(), rows, block, columns.data());
    for (int m = 0; m < rows; m++)
      for (int j = 0; j < PANEL; j++) same(columns[m / HALVES * block + j * HALVES + m % HALVES], at(m, j), "columns");
  }
}

// A [rows, depth] in the form `rows` and B [depth, columns] as `pairs`, both padded with zeros.
struct Factors {
  int rows, depth, columns, padded;
  Guarded<Half> a;
  Guarded<std::uint32_t> b;
  std::ptrdiff_t b_panel;

  Factors(int rows, int depth, int panels, check::Random &random)
      : rows(rows), depth(depth), columns(panels * PANEL), padded(half_panels_of(depth) * HALVES), a((std::size_t)padded * rows),
        b((std::size_t)panels * padded / 2 * PANEL), b_panel((std::ptrdiff_t)padded / 2 * PANEL) {
    for (int k = 0; k < depth; k++) {
      for (int m = 0; m < rows; m++) a[((std::size_t)(k / HALVES) * rows + m) * HALVES + k % HALVES] = nearest(random.within(2));
      for (int j = 0; j < columns; j++) pair(k, j) |= (std::uint32_t)nearest(random.within(2)) << (k % 2 * 16);
    }
  }
  std::uint32_t &pair(int k, int j) const { return b[(j / PANEL) * b_panel + k / 2 * PANEL + j % PANEL]; }
  double left(int m, int k) const { return value(a[((std::size_t)(k / HALVES) * rows + m) * HALVES + k % HALVES]); }
  double right(int k, int j) const { return value((Half)(pair(k, j) >> (k % 2 * 16))); }
  HalfTerm term() const { return {a.data(), b.data(), b_panel, depth}; }
};

void compare_product(int rows, int panels, const std::vector<int> &depths, bool with_bias, bool add, check::Random &random) {
  const int columns = panels * PANEL;
  std::vector<Factors> factors;
  std::vector<HalfTerm> terms;
  for (int depth : depths) factors.emplace_back(rows, depth, panels, random);
  for (const Factors &f : factors) terms.push_back(f.term());
  const Floats bias = check::drawn(columns, 1, random), before = check::drawn((std::size_t)rows * columns, 1, random);
  const Floats c = Floats::of(before);
  product(terms.data(), (int)terms.size(), rows, panels, with_bias ? bias.data() : nullptr, add, c.data());
  for (int m = 0; m < rows; m++)
    for (int j = 0; j < columns; j++) {
      const std::size_t at = ((std::size_t)(j / PANEL) * rows + m) * PANEL + j % PANEL;
      double exact = add ? before[at] : with_bias ? bias[j] : 0, size = std::fabs(exact);
      int summed = 0;
      for (const Factors &f : factors)
        for (int k = 0; k < f.depth; k++, summed++) {
          const double one = f.left(m, k) * f.right(k, j);
          exact += one;
          size += std::fabs(one);
        }
      check::close(c[at], exact, (summed + 4) * 0x1p-24 * size, [&] {
        return check::text("bfloat16 product of %d rows, %d panels, %zu terms from depth %d at [%d, %d]", rows, panels, depths.size(), depths.empty() ? 0 : depths[0], m, j);
      });
    }
}

void products() {
  check::Random random(62);
  half_begin();
  const bool quick = check::conditions().quick || check::SANITIZED;
  for (int rows = 0; rows <= 96; rows += quick ? 32 : 16)
    for (int panels = 1; panels <= 9; panels += quick ? 2 : 1) {
      compare_product(rows, panels, {1 + random.below(100)}, panels % 2, panels % 3 == 0, random);
      compare_product(rows, panels, {1 + random.below(50), 1 + random.below(50)}, panels % 2 == 0, panels % 3 == 1, random);
    }
  compare_product(32, 4, {32, 64, 32, 32, 96, 32, 32, 32}, false, true, random);
  compare_product(32, 2, {}, true, false, random);
  half_end();
}

const check::Test of_forms{"bfloat16: forms", forms};
const check::Test of_products{"bfloat16: products", products};

}  // namespace
