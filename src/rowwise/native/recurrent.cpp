#include "recurrent.h"

namespace rowwise {

void add_column_sums(Sequence d, int steps, int panels, int rows, float *sums) {
  for (int p = 0; p < panels; p++) {
    Vec total[PIECES];
    for (int v = 0; v < PIECES; v++) total[v] = load(sums + p * PANEL + v * LANES);
    for (int t = 0; t < steps; t++) {
      const float *row = d.at(t) + (std::ptrdiff_t)p * rows * PANEL;
      Vec even[PIECES] = {}, odd[PIECES] = {};
      int m = 0;
      for (; m + 1 < rows; m += 2)
        for (int v = 0; v < PIECES; v++) {
          even[v] += load(row + m * PANEL + v * LANES);
          odd[v] += load(row + (m + 1) * PANEL + v * LANES);
        }
      for (int v = 0; v < PIECES; v++) {
        if (m < rows) even[v] += load(row + m * PANEL + v * LANES);
        total[v] += even[v] + odd[v];
      }
    }
    for (int v = 0; v < PIECES; v++) store(sums + p * PANEL + v * LANES, total[v]);
  }
}

namespace {

// What a cell is to the loops below. JOINT gates sum x W + h U; the GRU's candidate, which keeps the
// two apart, is SPLIT off.
struct SimpleRnn {
  static constexpr int JOINT = 1;
  static constexpr bool SPLIT = false, MEMORY = false;
};
struct Lstm {
  static constexpr int JOINT = 4;
  static constexpr bool SPLIT = false, MEMORY = true;
};
struct Gru {
  static constexpr int JOINT = 2;
  static constexpr bool SPLIT = true, MEMORY = false;
};

// What a step multiplies, and where: the sizes and places that both precisions share.
template <class Cell>
struct Bound {
  const Direction &direction;
  const DirectionWeights &w;
  const Tape &tape;
  const Sequence x;
  const int rows;
  const int panels = direction.panels();
  const std::ptrdiff_t panel = (std::ptrdiff_t)rows * PANEL;

  static constexpr int GATES = Cell::JOINT + (Cell::SPLIT ? 1 : 0);
  int joint() const { return Cell::JOINT * panels; }  // gate panels before the split gate's
  const float *input(int s) const { return x.at(direction.place(s)); }
  float *state(int s) const { return direction.state(tape, s, rows); }
  float *gates(int s, int u) const { return tape.gates.at(s) + u * Cell::JOINT * panel; }
  // The state that step s reads is not known to be zero.
  bool reads_state(int s) const { return s > 0 || !tape.zero_start; }
  std::ptrdiff_t kernel_panel() const { return (std::ptrdiff_t)w.input_rows * PANEL; }
  std::ptrdiff_t recurrent_panel() const { return (std::ptrdiff_t)panels * PANEL * PANEL; }
};

// The products in float32: the factors are the values themselves.
template <class Cell>
class FloatProducts : public Bound<Cell> {
  using P = Bound<Cell>;

 public:
  explicit FloatProducts(const P &pass) : P(pass) {}

  void begin(int s) {
    if (P::tape.ahead && s % STEPS_AHEAD == 0) look_ahead(s);
  }
  void keep_state(int, int) {}
  void keep_gradients(int, int) {}

  // The sums of `count` gate panels from `column` on at step s, from x, from h, or from both.
  void sums(int s, int column, int count, bool from_x, bool from_h, const float *bias, float *to) {
    Term terms[2];
    int used = 0;
    if (from_x && P::tape.ahead)
      bias = sums_ahead(s % STEPS_AHEAD) + column * PANEL;
    else if (from_x)
      terms[used++] = {P::input(s), P::w.kernel + column * P::kernel_panel(), P::kernel_panel(), P::w.inputs};
    if (from_h && P::reads_state(s))
      terms[used++] = {P::state(s), P::w.recurrent + column * P::recurrent_panel(), P::recurrent_panel(),
                       P::direction.units};
    product(terms, used, P::rows, count, bias, false, to);
  }

  // What step s's gates hand back to the state before it, for `count` unit panels from `u` on: += for
  // the GRU, which has left in dh what came past the gates, else =.
  void state_gradient(int s, int u, int count, float *dh) {
    const std::ptrdiff_t width = (std::ptrdiff_t)P::GATES * P::panels * PANEL * PANEL;
    back(P::tape.split_h, s, P::w.recurrent_t + u * width, width, count, Cell::SPLIT, dh);
  }
  void input_gradient(int s, float *d_x, bool add) {
    const std::ptrdiff_t width = (std::ptrdiff_t)P::GATES * P::panels * PANEL * PANEL;
    back(P::tape.split_x, s, P::w.kernel_t, width, panels_of(P::w.inputs), add, d_x);
  }

  int steps_at_once() const { return std::max(1, std::min(P::direction.steps, 256 / std::max(1, P::rows))); }

  // Over the steps s .. s + count - 1.
  void weight_gradients(int s, int count, const DirectionGradients &into) {
    const std::ptrdiff_t x_step = P::direction.reverse ? -P::x.step : P::x.step;
    // A zero initial state adds nothing to the first step's gradient.
    const int skip = P::reads_state(s) ? 0 : 1;
    auto kernel = [&](Sequence d, int first, int width) {
      gradient(P::input(s), x_step, d.at(s), d.step, count, P::rows, P::w.inputs, width,
               into.kernel + first * P::kernel_panel(), P::w.input_rows);
    };
    auto recurrent = [&](Sequence d, int first, int width) {
      gradient(P::state(s + skip), P::direction.state_size(P::rows), d.at(s + skip), d.step, count - skip, P::rows,
               P::direction.units, width, into.recurrent + first * P::recurrent_panel(), P::panels * PANEL);
    };
    kernel(P::tape.gates, 0, P::joint());
    recurrent(P::tape.gates, 0, P::joint());
    if constexpr (Cell::SPLIT) {
      kernel(P::tape.split_x, P::joint(), P::panels);
      recurrent(P::tape.split_h, P::joint(), P::panels);
    }
  }

 private:
  // tape.ahead: first [STEPS_AHEAD][GATES P][16], as the steps take them; then the product's factor
  // and result, [input panels][n][16] and [GATES P][n][16].
  int columns() const { return P::GATES * P::panels * PANEL; }
  float *sums_ahead(int step) const { return P::tape.ahead + (std::ptrdiff_t)step * columns(); }
  void look_ahead(int s) {
    const int n = std::min(STEPS_AHEAD, P::direction.steps - s);
    float *inputs = sums_ahead(STEPS_AHEAD), *sums = inputs + STEPS_AHEAD * P::w.input_rows;
    for (int i = 0; i < n; i++)
      for (int j = 0; j < P::w.input_rows; j += PANEL)
        std::memcpy(inputs + j * n + i * PANEL, P::input(s + i) + j, PANEL * sizeof(float));
    const Term term{inputs, P::w.kernel, P::kernel_panel(), P::w.inputs};
    product(&term, 1, n, columns() / PANEL, P::w.bias, false, sums);
    for (int i = 0; i < n; i++)
      for (int j = 0; j < columns(); j += PANEL)
        std::memcpy(sums_ahead(i) + j, sums + j * n + i * PANEL, PANEL * sizeof(float));
  }

  void back(Sequence split, int s, const float *b, std::ptrdiff_t width, int count, bool add, float *to) {
    Term terms[2] = {{P::tape.gates.at(s), b, width, P::joint() * PANEL}};
    if constexpr (Cell::SPLIT)
      terms[1] = {split.at(s), b + (std::ptrdiff_t)P::joint() * PANEL * PANEL, width, P::panels * PANEL};
    product(terms, Cell::SPLIT ? 2 : 1, P::rows, count, nullptr, add, to);
  }
};

// The products in bfloat16: each factor is rounded once, when it is made, into the forms of half.h.
template <class Cell>
class HalfProducts : public Bound<Cell> {
  using P = Bound<Cell>;

 public:
  explicit HalfProducts(const P &pass) : P(pass), half_(*pass.tape.half), weights_(*pass.w.half) { half_begin(); }
  ~HalfProducts() { half_end(); }

  // Before the sums of step s.
  void begin(int s) {
    const float *input = P::input(s);
    for (int p = 0; p < P::w.input_rows / PANEL; p++) {
      to_rows(input + p * P::panel, P::rows, p & 1, half_.x_rows + p / 2 * block());
      to_columns(input + p * P::panel, P::rows, (std::ptrdiff_t)P::w.input_rows * HALVES,
                 x_columns(s) + p * PANEL * HALVES);
    }
    if (s == 0)
      for (int u = 0; u < P::panels; u++) keep_state(0, u);
  }
  // Unit panel u of state s is complete.
  void keep_state(int s, int u) {
    if (s == P::direction.steps) return;
    const float *panel = P::state(s) + u * P::panel;
    to_rows(panel, P::rows, u & 1, h_rows(s) + u / 2 * block());
    to_columns(panel, P::rows, unit_block(), h_columns(s) + u * PANEL * HALVES);
  }
  // The gates of unit panel u of step s have become their gradients.
  void keep_gradients(int s, int u) {
    for (int g = 0, q = u * Cell::JOINT; g < Cell::JOINT; g++, q++) {
      const float *panel = P::gates(s, u) + g * P::panel;
      to_rows(panel, P::rows, q & 1, d_rows(s) + q / 2 * block());
      to_pairs(panel, P::rows, pairs(half_.d_pairs, s, P::joint()) + q * pair_panel());
    }
    if constexpr (Cell::SPLIT) {
      const float *by_h = P::tape.split_h.at(s) + u * P::panel, *by_x = P::tape.split_x.at(s) + u * P::panel;
      to_rows(by_h, P::rows, u & 1, d_split_rows(s) + u / 2 * block());
      to_rows(by_x, P::rows, u & 1, half_.d_split_x_rows + u / 2 * block());
      to_pairs(by_h, P::rows, pairs(half_.d_split_h_pairs, s, P::panels) + u * pair_panel());
      to_pairs(by_x, P::rows, pairs(half_.d_split_x_pairs, s, P::panels) + u * pair_panel());
    }
  }

  void sums(int s, int column, int count, bool from_x, bool from_h, const float *bias, float *to) {
    HalfTerm terms[2];
    int used = 0;
    const std::ptrdiff_t x_panel = half_depth(P::w.inputs) * PANEL, h_panel = half_depth(P::panels * PANEL) * PANEL;
    if (from_x) terms[used++] = {half_.x_rows, weights_.kernel + column * x_panel, x_panel, P::w.inputs};
    if (from_h && P::reads_state(s))
      terms[used++] = {h_rows(s), weights_.recurrent + column * h_panel, h_panel, P::direction.units};
    product(terms, used, P::rows, count, bias, false, to);
  }
  void state_gradient(int s, int u, int count, float *dh) {
    const std::ptrdiff_t width = back_width();
    back(d_split_rows(s), s, weights_.recurrent_t + u * width, count, Cell::SPLIT, dh);
  }
  void input_gradient(int s, float *d_x, bool add) {
    back(half_.d_split_x_rows, s, weights_.kernel_t, panels_of(P::w.inputs), add, d_x);
  }

  int steps_at_once() const { return HALF_STEPS; }

  void weight_gradients(int s, int count, const DirectionGradients &into) {
    auto add = [&](auto columns, int rows, std::uint32_t *d, int width, float *to) {
      HalfTerm terms[HALF_STEPS];
      for (int i = 0; i < count; i++) terms[i] = {columns(s + i), pairs(d, s + i, width), pair_panel(), P::rows};
      product(terms, count, rows, width, nullptr, true, to);
    };
    auto x = [&](int step) { return x_columns(step); };
    auto h = [&](int step) { return h_columns(step); };
    const int units = P::panels * PANEL;
    add(x, P::w.input_rows, half_.d_pairs, P::joint(), into.kernel);
    add(h, units, half_.d_pairs, P::joint(), into.recurrent);
    if constexpr (Cell::SPLIT) {
      add(x, P::w.input_rows, half_.d_split_x_pairs, P::panels, into.kernel + P::joint() * P::kernel_panel());
      add(h, units, half_.d_split_h_pairs, P::panels, into.recurrent + P::joint() * P::recurrent_panel());
    }
  }

 private:
  std::ptrdiff_t block() const { return (std::ptrdiff_t)P::rows * HALVES; }
  std::ptrdiff_t unit_block() const { return (std::ptrdiff_t)P::panels * PANEL * HALVES; }
  std::ptrdiff_t pair_panel() const { return (std::ptrdiff_t)P::rows / 2 * PANEL; }
  std::ptrdiff_t back_width() const {
    return (half_depth(P::joint() * PANEL) + (Cell::SPLIT ? half_depth(P::panels * PANEL) : 0)) * (std::ptrdiff_t)PANEL;
  }
  Half *x_columns(int s) const { return half_.x_columns + s * (std::ptrdiff_t)P::rows * P::w.input_rows; }
  Half *h_columns(int s) const { return half_.h_columns + s * (std::ptrdiff_t)P::rows * P::panels * PANEL; }
  Half *h_rows(int s) const { return half_.h_rows + (s & 1) * half_panels_of(P::panels * PANEL) * block(); }
  Half *d_rows(int s) const { return half_.d_rows + (s & 1) * half_panels_of(P::joint() * PANEL) * block(); }
  Half *d_split_rows(int s) const { return half_.d_split_rows + (s & 1) * half_panels_of(P::panels * PANEL) * block(); }
  std::uint32_t *pairs(std::uint32_t *first, int s, int width) const {
    return first + s % HALF_STEPS * width * pair_panel();
  }
  void back(const Half *split, int s, const std::uint32_t *b, int count, bool add, float *to) {
    const std::ptrdiff_t width = back_width();
    HalfTerm terms[2] = {{d_rows(s), b, width, P::joint() * PANEL}};
    if constexpr (Cell::SPLIT)
      terms[1] = {split, b + half_depth(P::joint() * PANEL) * PANEL, width, P::panels * PANEL};
    product(terms, Cell::SPLIT ? 2 : 1, P::rows, count, nullptr, add, to);
  }

  const HalfTape &half_;
  const HalfWeights &weights_;
};

// Element by element, for unit panel u of step s: gates, state and what the pass back will need.
template <class Cell, class Act, class Gate>
void activate(const Bound<Cell> &pass, int s, int u) {
  const std::ptrdiff_t size = pass.panel, at = u * size;
  const Tape &tape = pass.tape;
  float *gates = pass.gates(s, u), *after = pass.state(s + 1) + at;
  if constexpr (Cell::MEMORY) {
    float *i_ = gates, *f_ = gates + size, *g_ = gates + 2 * size, *o_ = gates + 3 * size;
    const float *c_before = tape.memory.at(s) + at;
    float *c_after = tape.memory.at(s + 1) + at, *squashed = tape.squashed.at(s) + at;
    for (std::ptrdiff_t k = 0; k < size; k += LANES) {
      const Vec i = Gate::of(load(i_ + k)), f = Gate::of(load(f_ + k));
      const Vec g = Act::of(load(g_ + k)), o = Gate::of(load(o_ + k));
      const Vec c = f * load(c_before + k) + i * g;
      const Vec y = Act::of(c);
      store(i_ + k, i);
      store(f_ + k, f);
      store(g_ + k, g);
      store(o_ + k, o);
      store(c_after + k, c);
      store(squashed + k, y);
      store(after + k, o * y);
    }
  } else if constexpr (Cell::SPLIT) {
    float *r_ = gates, *z_ = gates + size, *n_ = tape.split_x.at(s) + at;
    const float *by_h = tape.split_h.at(s) + at, *before = pass.state(s) + at;
    for (std::ptrdiff_t k = 0; k < size; k += LANES) {
      const Vec r = Gate::of(load(r_ + k)), z = Gate::of(load(z_ + k));
      const Vec n = Act::of(load(n_ + k) + r * load(by_h + k));
      store(r_ + k, r);
      store(z_ + k, z);
      store(n_ + k, n);
      store(after + k, n + z * (load(before + k) - n));
    }
  } else {
    for (std::ptrdiff_t k = 0; k < size; k += LANES) store(after + k, Act::of(load(gates + k)));
  }
}

// Element by element back: the gates of unit panel u of step s become their sums' gradients, from the
// gradient dh of the state after it; the GRU leaves in dh what goes past its gates.
template <class Cell, class Act>
void differentiate(const Bound<Cell> &pass, int s, int u, float *dh) {
  const std::ptrdiff_t size = pass.panel, at = u * size;
  const Tape &tape = pass.tape;
  float *gates = pass.gates(s, u);
  if constexpr (Cell::MEMORY) {
    float *i_ = gates, *f_ = gates + size, *g_ = gates + 2 * size, *o_ = gates + 3 * size;
    const float *c_before = tape.memory.at(s) + at, *squashed = tape.squashed.at(s) + at;
    float *dc_ = tape.memory_gradient + at;
    for (std::ptrdiff_t k = 0; k < size; k += LANES) {
      const Vec i = load(i_ + k), f = load(f_ + k), g = load(g_ + k), o = load(o_ + k);
      const Vec y = load(squashed + k), d = load(dh + k);
      const Vec dc = load(dc_ + k) + Act::scaled_by_slope(d * o, y);
      store(i_ + k, Sigmoid::scaled_by_slope(dc * g, i));
      store(f_ + k, Sigmoid::scaled_by_slope(dc * load(c_before + k), f));
      store(g_ + k, Act::scaled_by_slope(dc * i, g));
      store(o_ + k, Sigmoid::scaled_by_slope(d * y, o));
      store(dc_ + k, dc * f);
    }
  } else if constexpr (Cell::SPLIT) {
    float *r_ = gates, *z_ = gates + size;
    float *n_ = tape.split_x.at(s) + at, *h_ = tape.split_h.at(s) + at;
    const float *before = pass.state(s) + at;
    for (std::ptrdiff_t k = 0; k < size; k += LANES) {
      const Vec r = load(r_ + k), z = load(z_ + k), n = load(n_ + k), d = load(dh + k);
      const Vec dn = Act::scaled_by_slope(d * (1.0f - z), n);
      store(r_ + k, Sigmoid::scaled_by_slope(dn * load(h_ + k), r));
      store(z_ + k, Sigmoid::scaled_by_slope(d * (load(before + k) - n), z));
      store(n_ + k, dn);
      store(h_ + k, dn * r);
      store(dh + k, d * z);
    }
  } else {
    const float *y = pass.state(s + 1) + at;
    for (std::ptrdiff_t k = 0; k < size; k += LANES) store(gates + k, Act::scaled_by_slope(load(dh + k), load(y + k)));
  }
}

void add_to(float *to, const float *from, std::ptrdiff_t size) {
  for (std::ptrdiff_t k = 0; k < size; k += LANES) store(to + k, load(to + k) + load(from + k));
}

template <class Cell, class Products, class Act, class Gate>
bool run_forward(const Bound<Cell> &bound, Cancel &cancel) {
  constexpr int ahead = Cell::JOINT == 1 ? 4 : 1;  // unit panels in one product
  Products pass(bound);
  for (int s = 0; s < pass.direction.steps; s++) {
    if (cancel.asked()) return false;
    pass.begin(s);
    for (int u = 0; u < pass.panels; u += ahead) {
      const int count = std::min(ahead, pass.panels - u);
      const int first = u * Cell::JOINT;
      pass.sums(s, first, count * Cell::JOINT, true, true, pass.w.bias + first * PANEL, pass.gates(s, u));
      if constexpr (Cell::SPLIT) {
        const int column = pass.joint() + u;
        pass.sums(s, column, 1, true, false, pass.w.bias + column * PANEL, pass.tape.split_x.at(s) + u * pass.panel);
        pass.sums(s, column, 1, false, true, pass.w.split_bias + u * PANEL, pass.tape.split_h.at(s) + u * pass.panel);
      }
      for (int i = u; i < u + count; i++) {
        activate<Cell, Act, Gate>(pass, s, i);
        pass.keep_state(s + 1, i);
      }
    }
  }
  return true;
}

template <class Cell, class Products, class Act>
bool run_backward(const Bound<Cell> &bound, const DirectionGradients &into, Sequence d_states, bool last_only,
                  Sequence d_x, bool add_to_d_x, Cancel &cancel) {
  constexpr int ahead = 4;  // unit panels of which the state's gradients are taken at once
  Products pass(bound);
  const Tape &tape = pass.tape;
  const std::size_t state_bytes = pass.direction.state_size(pass.rows) * sizeof(float);
  // Weight gradients are taken over some steps at a time, while their factors are in the cache, and
  // over enough rows to pay for passing over the weights.
  const int block = pass.steps_at_once();
  int pending = 0;
  std::memset(tape.state_gradient, 0, state_bytes);
  if (Cell::MEMORY && !tape.memory_gradient_given) std::memset(tape.memory_gradient, 0, state_bytes);
  const int last = pass.direction.steps - 1;
  for (int s = last; s >= 0; s--) {
    if (cancel.asked()) return false;
    const float *from_outside = nullptr;
    if (d_states.data && last_only)
      from_outside = s == last ? d_states.data : nullptr;
    else if (d_states.data)
      from_outside = d_states.at(pass.direction.place(s));
    for (int u = 0; u < pass.panels; u += ahead) {
      const int count = std::min(ahead, pass.panels - u);
      float *dh = tape.state_gradient + u * pass.panel;
      if (s < last) pass.state_gradient(s + 1, u, count, dh);
      if (from_outside) add_to(dh, from_outside + u * pass.panel, count * pass.panel);
      for (int i = u; i < u + count; i++) {
        differentiate<Cell, Act>(pass, s, i, tape.state_gradient + i * pass.panel);
        pass.keep_gradients(s, i);
      }
    }
    if (d_x.data) pass.input_gradient(s, d_x.at(pass.direction.place(s)), add_to_d_x);
    if (++pending < block && s > 0) continue;
    pass.weight_gradients(s, pending, into);
    add_column_sums({tape.gates.at(s), tape.gates.step}, pending, pass.joint(), pass.rows, into.bias);
    if constexpr (Cell::SPLIT) {
      float *split_x_bias = into.bias + pass.joint() * PANEL;
      add_column_sums({tape.split_x.at(s), tape.split_x.step}, pending, pass.panels, pass.rows, split_x_bias);
      add_column_sums({tape.split_h.at(s), tape.split_h.step}, pending, pass.panels, pass.rows, into.split_bias);
    }
    pending = 0;
  }
  if (!tape.zero_start)
    for (int u = 0; u < pass.panels; u += ahead)
      pass.state_gradient(0, u, std::min(ahead, pass.panels - u), tape.state_gradient + u * pass.panel);
  return true;
}

// Beside products in bfloat16, activations need no more than their precision.
template <class Act>
struct Quick {
  using type = Act;
};
template <>
struct Quick<Tanh> {
  using type = QuickTanh;
};

template <class Cell, class Act>
class CellDirection final : public Direction {
 public:
  bool forward(const DirectionWeights &w, const Tape &tape, Sequence x, int rows, Cancel &cancel) const override {
    const Bound<Cell> pass{*this, w, tape, x, rows};
    if (tape.half) return run_forward<Cell, HalfProducts<Cell>, typename Quick<Act>::type, QuickSigmoid>(pass, cancel);
    return run_forward<Cell, FloatProducts<Cell>, Act, Sigmoid>(pass, cancel);
  }

  bool backward(const DirectionWeights &w, const DirectionGradients &into, const Tape &tape, Sequence x,
                Sequence d_states, bool last_only, Sequence d_x, bool add_to_d_x, int rows,
                Cancel &cancel) const override {
    const Bound<Cell> pass{*this, w, tape, x, rows};
    if (tape.half)
      return run_backward<Cell, HalfProducts<Cell>, Act>(pass, into, d_states, last_only, d_x, add_to_d_x, cancel);
    return run_backward<Cell, FloatProducts<Cell>, Act>(pass, into, d_states, last_only, d_x, add_to_d_x, cancel);
  }
};

template <class Cell>
std::unique_ptr<Direction> direction_of(bool relu) {
  if (relu) return std::make_unique<CellDirection<Cell, Relu>>();
  return std::make_unique<CellDirection<Cell, Tanh>>();
}

std::unique_ptr<Direction> direction_of(CellKind kind, bool relu) {
  switch (kind) {
    case CellKind::simple_rnn: return direction_of<SimpleRnn>(relu);
    case CellKind::lstm: return direction_of<Lstm>(relu);
    case CellKind::gru: return direction_of<Gru>(relu);
  }
  throw Unknown();
}

}  // namespace

std::unique_ptr<Direction> make_direction(CellKind kind, bool relu, int steps, int units, bool reverse) {
  std::unique_ptr<Direction> direction = direction_of(kind, relu);
  direction->steps = steps;
  direction->units = units;
  direction->reverse = reverse;
  return direction;
}

std::vector<int> gate_places(CellKind kind, int units) {
  const int panels = panels_of(units);
  std::vector<int> places;
  for (int g = 0; g < gates_of(kind); g++)
    for (int u = 0; u < units; u++) places.push_back(gate_panel(kind, g, u / PANEL, panels) * PANEL + u % PANEL);
  return places;
}

}  // namespace rowwise
