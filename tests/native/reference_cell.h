// The cells of cells.py in double precision, step by step, forward and back: slow and plain.
//
// Arrays are row-major: x [T][B][I], states [T + 1][B][H] in the order of reading, weights as in
// cells.py, gates in its order (LSTM i, f, g, o; GRU r, z, n).
#pragma once

#include <cmath>
#include <vector>

#include "check.h"
#include "recurrent.h"

namespace check {

typedef std::vector<double> Numbers;

struct Sizes {
  rowwise::CellKind kind;
  bool relu, reverse;
  int steps, batch, inputs, units;

  int gates() const { return rowwise::gates_of(kind); }
  int columns() const { return gates() * units; }
  bool has_memory() const { return kind == rowwise::CellKind::lstm; }
  bool is_split() const { return kind == rowwise::CellKind::gru; }
  int place(int s) const { return reverse ? steps - 1 - s : s; }
};

// What goes in; h and c are zero where the caller has none.
struct CellInputs {
  Numbers x, kernel, recurrent, bias, recurrent_bias, h, c;
};
// What comes out, each in the shape of what it is the gradient of.
struct CellGradients {
  Numbers x, kernel, recurrent, bias, recurrent_bias, h, c;
};

class ReferenceCell {
 public:
  ReferenceCell(const Sizes &sizes, const CellInputs &in) : z(sizes), in(in) {
    const std::size_t state = (std::size_t)z.batch * z.units;
    h = Numbers(state * (z.steps + 1));
    c = Numbers(state * (z.steps + 1));
    gates = Numbers((std::size_t)z.steps * z.batch * z.columns());
    by_h = Numbers(state * z.steps);
    std::copy(in.h.begin(), in.h.end(), h.begin());
    std::copy(in.c.begin(), in.c.end(), c.begin());
    for (int s = 0; s < z.steps; s++)
      for (int b = 0; b < z.batch; b++)
        for (int u = 0; u < z.units; u++) step(s, b, u);
  }

  double state(int s, int b, int u) const { return h[at(s, b, u)]; }
  double memory(int s, int b, int u) const { return c[at(s, b, u)]; }

  // d_states [T][B][H] in the order of x; d_c_last [B][H].
  CellGradients back(const Numbers &d_states, const Numbers &d_c_last) const {
    CellGradients d{Numbers(in.x.size()), Numbers(in.kernel.size()), Numbers(in.recurrent.size()), Numbers(z.columns()),
                    Numbers(z.columns()), Numbers((std::size_t)z.batch * z.units), d_c_last};
    for (int s = z.steps - 1; s >= 0; s--)
      for (int b = 0; b < z.batch; b++) step_back(s, b, d_states, d);
    return d;
  }

 private:
  std::size_t at(int s, int b, int u) const { return ((std::size_t)s * z.batch + b) * z.units + u; }
  std::size_t gate_at(int s, int b, int g, int u) const { return ((std::size_t)s * z.batch + b) * z.columns() + g * z.units + u; }
  std::size_t x_at(int s, int b) const { return ((std::size_t)z.place(s) * z.batch + b) * z.inputs; }
  double act(double v) const { return z.relu ? (v > 0 ? v : 0) : std::tanh(v); }
  double slope(double y) const { return z.relu ? (y > 0 ? 1 : 0) : 1 - y * y; }
  static double sigmoid(double v) { return 1 / (1 + std::exp(-v)); }

  double from_x(int s, int b, int g, int u) const {
    double total = in.bias[g * z.units + u];
    for (int i = 0; i < z.inputs; i++) total += in.x[x_at(s, b) + i] * in.kernel[(std::size_t)i * z.columns() + g * z.units + u];
    return total;
  }
  double from_h(int s, int b, int g, int u) const {
    double total = z.is_split() ? in.recurrent_bias[g * z.units + u] : 0;
    for (int k = 0; k < z.units; k++) total += h[at(s, b, k)] * in.recurrent[(std::size_t)k * z.columns() + g * z.units + u];
    return total;
  }

  void step(int s, int b, int u) {
    auto gate = [&](int g) -> double & { return gates[gate_at(s, b, g, u)]; };
    auto both = [&](int g) { return from_x(s, b, g, u) + from_h(s, b, g, u); };
    double &next = h[at(s + 1, b, u)];
    if (z.has_memory()) {
      gate(0) = sigmoid(both(0)), gate(1) = sigmoid(both(1)), gate(2) = act(both(2)), gate(3) = sigmoid(both(3));
      c[at(s + 1, b, u)] = gate(1) * c[at(s, b, u)] + gate(0) * gate(2);
      next = gate(3) * act(c[at(s + 1, b, u)]);
    } else if (z.is_split()) {
      gate(0) = sigmoid(both(0)), gate(1) = sigmoid(both(1));
      by_h[at(s, b, u)] = from_h(s, b, 2, u);
      gate(2) = act(from_x(s, b, 2, u) + gate(0) * by_h[at(s, b, u)]);
      next = gate(2) + gate(1) * (h[at(s, b, u)] - gate(2));
    } else {
      gate(0) = next = act(both(0));
    }
  }

  // For one row: the gradients of its gates' sums, then what follows from these. d.h and d.c hold the
  // gradients of the state after step s, and then those of the state before it.
  void step_back(int s, int b, const Numbers &d_states, CellGradients &d) const {
    const std::size_t row = (std::size_t)b * z.units;
    Numbers sums(z.columns()), sums_h(z.columns()), past(z.units);
    for (int u = 0; u < z.units; u++) {
      const double dh = d.h[row + u] + d_states[((std::size_t)z.place(s) * z.batch + b) * z.units + u];
      auto gate = [&](int g) { return gates[gate_at(s, b, g, u)]; };
      auto set = [&](int g, double value) { sums[g * z.units + u] = sums_h[g * z.units + u] = value; };
      if (z.has_memory()) {
        const double y = act(c[at(s + 1, b, u)]), dc = d.c[row + u] + dh * gate(3) * slope(y);
        set(0, dc * gate(2) * gate(0) * (1 - gate(0)));
        set(1, dc * c[at(s, b, u)] * gate(1) * (1 - gate(1)));
        set(2, dc * gate(0) * slope(gate(2)));
        set(3, dh * y * gate(3) * (1 - gate(3)));
        d.c[row + u] = dc * gate(1);
      } else if (z.is_split()) {
        const double dn = dh * (1 - gate(1)) * slope(gate(2));
        set(0, dn * by_h[at(s, b, u)] * gate(0) * (1 - gate(0)));
        set(1, dh * (h[at(s, b, u)] - gate(2)) * gate(1) * (1 - gate(1)));
        set(2, dn);
        sums_h[2 * z.units + u] = dn * gate(0);
        past[u] = dh * gate(1);
      } else {
        set(0, dh * slope(gate(0)));
      }
    }
    for (int u = 0; u < z.units; u++) d.h[row + u] = past[u];
    for (int j = 0; j < z.columns(); j++) {
      d.bias[j] += sums[j];
      d.recurrent_bias[j] += sums_h[j];
      for (int i = 0; i < z.inputs; i++) {
        d.kernel[(std::size_t)i * z.columns() + j] += in.x[x_at(s, b) + i] * sums[j];
        d.x[x_at(s, b) + i] += in.kernel[(std::size_t)i * z.columns() + j] * sums[j];
      }
      for (int k = 0; k < z.units; k++) {
        d.recurrent[(std::size_t)k * z.columns() + j] += h[at(s, b, k)] * sums_h[j];
        d.h[row + k] += in.recurrent[(std::size_t)k * z.columns() + j] * sums_h[j];
      }
    }
  }

  const Sizes z;
  const CellInputs in;
  Numbers h, c, gates, by_h;
};

// Numbers that a cell can work on: states of order one, no sum of a relu near its corner.
inline CellInputs draw(const Sizes &z, bool with_state, Random &random) {
  auto numbers = [&](std::size_t size, double limit) {
    Numbers made(size);
    for (double &x : made) x = random.within(limit);  // a float, so that both sides begin with the same
    return made;
  };
  const std::size_t state = (std::size_t)z.batch * z.units;
  const double fan_in = std::sqrt((double)(z.inputs + z.units));
  CellInputs in;
  in.x = numbers((std::size_t)z.steps * z.batch * z.inputs, 1);
  in.kernel = numbers((std::size_t)z.inputs * z.columns(), 1.5 / fan_in);
  in.recurrent = numbers((std::size_t)z.units * z.columns(), 1.5 / fan_in);
  in.bias = numbers(z.columns(), 0.5);
  in.recurrent_bias = numbers(z.is_split() ? z.columns() : 0, 0.5);
  in.h = with_state ? numbers(state, 1) : Numbers(state);
  in.c = with_state && z.has_memory() ? numbers(state, 1) : Numbers(state);
  return in;
}

}  // namespace check
