// gemm.h against sums in double precision, over sizes that fill tiles and panels and that do not.
#include <cmath>
#include <limits>
#include <memory>

#include "check.h"
#include "gemm.h"

using namespace rowwise;

namespace {

constexpr float NOT_READ = std::numeric_limits<float>::quiet_NaN();

// A matrix as column panels; what pads it is NaN, so that whoever reads it spoils his result.
struct Matrix {
  int rows, columns, kept;  // `kept` rows a panel, of which `rows` are used
  check::Floats data;

  Matrix(int rows, int columns, int kept, check::Random &random)
      : rows(rows), columns(columns), kept(kept), data((std::size_t)panels_of(columns) * kept * PANEL, NOT_READ) {
    for (int r = 0; r < rows; r++)
      for (int c = 0; c < columns; c++) at(r, c) = random.within(2);
  }
  Matrix(int rows, int columns, check::Random &random) : Matrix(rows, columns, rows, random) {}
  float &at(int r, int c) const { return data[((std::size_t)(c / PANEL) * kept + r) * PANEL + c % PANEL]; }
};

// The largest error of a sum of `terms` float32 products whose absolute values sum to `size`.
double allowed(int terms, double size) { return (terms + 4) * 0x1p-24 * size + 1e-37; }

void compare_product(int rows, int panels, std::vector<int> depths, bool with_bias, bool add, check::Random &random) {
  const int columns = panels * PANEL, count = (int)depths.size();
  std::vector<Matrix> as, bs;
  std::vector<Term> terms;
  for (int depth : depths) {
    as.emplace_back(rows, depth, random);
    bs.emplace_back(depth, columns, depth + random.below(20), random);
  }
  for (int t = 0; t < count; t++)
    terms.push_back({as[t].data.data(), bs[t].data.data(), (std::ptrdiff_t)bs[t].kept * PANEL, depths[t]});
  const Matrix bias(1, columns, random), before(rows, columns, random);
  check::Floats c = check::Floats::of(before.data);
  product(terms.data(), count, rows, panels, with_bias ? bias.data.data() : nullptr, add, c.data());
  for (int r = 0; r < rows; r++)
    for (int j = 0; j < columns; j++) {
      double exact = add ? before.at(r, j) : with_bias ? bias.at(0, j) : 0, size = std::fabs(exact);
      int summed = 0;
      for (int t = 0; t < count; t++)
        for (int k = 0; k < depths[t]; k++, summed++) {
          const double one = (double)as[t].at(r, k) * bs[t].at(k, j);
          exact += one;
          size += std::fabs(one);
        }
      const float got = c[((std::size_t)(j / PANEL) * rows + r) * PANEL + j % PANEL];
      check::close(got, exact, allowed(summed, size), [&] {
        return check::text("product of %d rows, %d panels, %d terms from depth %d, %s, at [%d, %d]", rows, panels, count,
                           count ? depths[0] : 0, add ? "added" : with_bias ? "biased" : "alone", r, j);
      });
    }
}

void products() {
  check::Random random(11);
  const bool quick = check::conditions().quick || check::SANITIZED;
  for (int rows = 0; rows <= 70; rows += quick && rows > 8 ? 13 : 1)
    for (int panels = 1; panels <= 9; panels += quick ? 2 : 1) {
      const int kind = rows + panels;
      compare_product(rows, panels, {1 + random.below(70)}, kind % 2, kind % 3 == 0, random);
      compare_product(rows, panels, {1 + random.below(40), 1 + random.below(40)}, kind % 2 == 0, kind % 3 == 1, random);
    }
  for (int depth = 1; depth <= 50; depth++) compare_product(5, 3, {depth}, true, false, random);
  // Depths at which the product takes its terms in several pieces.
  for (int depth : {319, 320, 321, 640, 1000})
    for (int rows : {1, 6, 7, 32}) compare_product(rows, 4, {depth, 17}, false, rows == 7, random);
  compare_product(4, 2, {}, true, false, random);
  compare_product(4, 2, {}, true, true, random);
}

void compare_gradient(int steps, int rows, int depth, int panels, bool backwards, check::Random &random) {
  const int columns = panels * PANEL, kept = (depth + PANEL - 1) / PANEL * PANEL;
  std::vector<Matrix> as, ds;
  const std::size_t a_size = (std::size_t)panels_of(depth) * rows * PANEL, d_size = (std::size_t)panels * rows * PANEL;
  check::Floats a(a_size * steps), d(d_size * steps);
  for (int t = 0; t < steps; t++) {
    as.emplace_back(rows, depth, random);
    ds.emplace_back(rows, columns, random);
    std::copy(as[t].data.begin(), as[t].data.end(), a.data() + a_size * (backwards ? steps - 1 - t : t));
    std::copy(ds[t].data.begin(), ds[t].data.end(), d.data() + d_size * t);
  }
  const Matrix before(kept, columns, random);
  check::Floats c = check::Floats::of(before.data);
  const float *a_first = a.data() + (backwards ? a_size * (steps - 1) : 0);
  gradient(a_first, backwards ? -(std::ptrdiff_t)a_size : (std::ptrdiff_t)a_size, d.data(), (std::ptrdiff_t)d_size, steps,
           rows, depth, panels, c.data(), kept);
  for (int k = 0; k < kept; k++)
    for (int j = 0; j < columns; j++) {
      double exact = before.at(k, j), size = std::fabs(exact);
      for (int t = 0; t < steps && k < depth; t++)
        for (int m = 0; m < rows; m++) {
          const double one = (double)as[t].at(m, k) * ds[t].at(m, j);
          exact += one;
          size += std::fabs(one);
        }
      const float got = c[((std::size_t)(j / PANEL) * kept + k) * PANEL + j % PANEL];
      check::close(got, exact, k < depth ? allowed(steps * rows, size) : 0, [&] {
        return check::text("gradient over %d steps of %d rows, depth %d, %d panels%s, at [%d, %d]", steps, rows, depth,
                           panels, backwards ? ", backwards" : "", k, j);
      });
    }
}

void gradients() {
  check::Random random(12);
  const int most = check::conditions().quick || check::SANITIZED ? 80 : 600;
  for (int round = 0; round < most; round++)
    compare_gradient(1 + random.below(5), random.below(35), 1 + random.below(60), 1 + random.below(9), round % 2, random);
  compare_gradient(0, 4, 20, 2, false, random);
}

void transposes() {
  check::Random random(13);
  for (int v = 1; v <= 5; v++)
    for (int p = 1; p <= 5; p++) {
      const int rows = v * PANEL, columns = p * PANEL;
      const Matrix from(rows, columns, random);
      Matrix to(columns, rows, random);
      const check::Floats untouched = check::Floats::of(to.data);
      const int first = random.below(v), last = first + random.below(v - first + 1);
      transpose(from.data.data(), rows, columns, first, last, to.data.data());
      for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++) {
          const bool done = r / PANEL >= first && r / PANEL < last;
          const std::size_t at = &to.at(c, r) - to.data.data();
          check::that(to.at(c, r) == (done ? from.at(r, c) : untouched[at]), "a transpose moves its own panels and no others");
        }
    }
}

const check::Test of_products{"products", products};
const check::Test of_gradients{"products: weight gradients", gradients};
const check::Test of_transposes{"products: transposes", transposes};

}  // namespace
