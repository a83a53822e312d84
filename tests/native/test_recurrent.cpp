// recurrent.h: a direction of each cell, forward and back, against the reference in double precision.
#include <algorithm>
#include <limits>

#include "check.h"
#include "reference_cell.h"

using namespace rowwise;
using check::CellGradients;
using check::CellInputs;
using check::Floats;
using check::Numbers;
using check::Sizes;

namespace {

constexpr float UNSET = std::numeric_limits<float>::quiet_NaN();

std::string text_of(const Sizes &z, const char *what) {
  const char *cells[] = {"simple RNN", "LSTM", "GRU"};
  return check::text("%s of %s %s%s, %d steps, %d rows, %d inputs, %d units", what, z.relu ? "relu" : "tanh",
                     cells[(int)z.kind], z.reverse ? " reversed" : "", z.steps, z.batch, z.inputs, z.units);
}

std::vector<int> in_order(int count) {
  std::vector<int> places(count);
  for (int i = 0; i < count; i++) places[i] = i;
  return places;
}

// A row-major [rows][places] as panels of `kept` rows; column j goes to places[j].
void pack(const double *from, int rows, const std::vector<int> &places, int kept, float *to) {
  for (int r = 0; r < rows; r++)
    for (std::size_t j = 0; j < places.size(); j++)
      to[((std::size_t)(places[j] / PANEL) * kept + r) * PANEL + places[j] % PANEL] = (float)from[r * places.size() + j];
}

// Panels against a row-major matrix, by the largest number in it; what pads them must be zero.
void compare(const float *got, const double *expected, int rows, const std::vector<int> &places, int panels, int kept,
             double tolerance, const Sizes &z, const char *what) {
  double largest = 1e-3;
  for (std::size_t i = 0; i < rows * places.size(); i++) largest = std::fmax(largest, std::fabs(expected[i]));
  std::vector<int> column(panels * PANEL, -1);
  for (std::size_t j = 0; j < places.size(); j++) column[places[j]] = (int)j;
  for (int p = 0; p < panels; p++)
    for (int r = 0; r < rows; r++)
      for (int i = 0; i < PANEL; i++) {
        const int j = column[p * PANEL + i];
        const double exact = j < 0 ? 0 : expected[r * places.size() + j];
        check::close(got[((std::size_t)p * kept + r) * PANEL + i], exact, j < 0 ? 0 : tolerance * largest, [&] {
          return text_of(z, what) + check::text(", row %d, %s %d", r, j < 0 ? "padding" : "column", j < 0 ? i : j);
        });
      }
}

// One direction's memory, laid out as the core wants it. `rows` are the batch, and more where these
// are filled up.
struct Laid {
  const Sizes &z;
  int rows, panels, input_panels, gate_panels;
  std::vector<int> inputs, units, gates;
  Floats x, kernel, recurrent, bias, split_bias, recurrent_t, kernel_t;
  DirectionWeights weights;

  Laid(const Sizes &z, const CellInputs &in, int rows)
      : z(z), rows(rows), panels(panels_of(z.units)), input_panels(panels_of(z.inputs)), gate_panels(z.gates() * panels),
        inputs(in_order(z.inputs)), units(in_order(z.units)), gates(gate_places(z.kind, z.units)),
        x((std::size_t)z.steps * input_panels * rows * PANEL), kernel((std::size_t)gate_panels * input_panels * PANEL * PANEL),
        recurrent((std::size_t)gate_panels * panels * PANEL * PANEL), bias((std::size_t)gate_panels * PANEL),
        split_bias(z.is_split() ? panels * PANEL : 0), recurrent_t(recurrent.size()), kernel_t(kernel.size()) {
    for (int t = 0; t < z.steps; t++)
      pack(in.x.data() + (std::size_t)t * z.batch * z.inputs, z.batch, inputs, rows, x.data() + t * x_step());
    pack(in.kernel.data(), z.inputs, gates, input_panels * PANEL, kernel.data());
    pack(in.recurrent.data(), z.units, gates, panels * PANEL, recurrent.data());
    Numbers both = in.bias;
    for (int j = 0; z.is_split() && j < 2 * z.units; j++) both[j] += in.recurrent_bias[j];
    pack(both.data(), 1, gates, 1, bias.data());
    if (z.is_split()) pack(&in.recurrent_bias[2 * z.units], 1, units, 1, split_bias.data());
    transpose(recurrent.data(), panels * PANEL, gate_panels * PANEL, 0, panels, recurrent_t.data());
    transpose(kernel.data(), input_panels * PANEL, gate_panels * PANEL, 0, input_panels, kernel_t.data());
    weights = {z.inputs,    input_panels * PANEL,  kernel.data(),      recurrent.data(),
               bias.data(), z.is_split() ? split_bias.data() : nullptr, recurrent_t.data(), kernel_t.data()};
  }
  std::ptrdiff_t x_step() const { return (std::ptrdiff_t)input_panels * rows * PANEL; }
  std::ptrdiff_t state() const { return (std::ptrdiff_t)panels * rows * PANEL; }
};

// A tape and the arrays under it. All is NaN beforehand but the initial state, so that nothing is
// read that was not written.
struct Reel {
  Floats states, gates, memory, squashed, split_x, split_h, state_gradient, memory_gradient;
  Tape tape;

  Reel(const Laid &laid, const CellInputs &in, bool kept, bool kept_states)
      : states(laid.state() * (kept_states ? laid.z.steps + 1 : 2), UNSET),
        gates(laid.state() * joint_gates(laid.z.kind) * steps(laid, kept), UNSET),
        memory(laid.z.has_memory() ? laid.state() * (kept ? laid.z.steps + 1 : 1) : 0, UNSET),
        squashed(laid.z.has_memory() ? laid.state() * steps(laid, kept) : 0, UNSET),
        split_x(laid.z.is_split() ? laid.state() * steps(laid, kept) : 0, UNSET),
        split_h(laid.z.is_split() ? laid.state() * steps(laid, kept) : 0, UNSET),
        state_gradient(laid.state(), UNSET), memory_gradient(laid.z.has_memory() ? laid.state() : 0, UNSET) {
    std::fill_n(states.data(), laid.state(), 0.0f);
    pack(in.h.data(), laid.z.batch, laid.units, laid.rows, states.data());
    if (laid.z.has_memory()) {
      std::fill_n(memory.data(), laid.state(), 0.0f);
      pack(in.c.data(), laid.z.batch, laid.units, laid.rows, memory.data());
    }
    const std::ptrdiff_t step = kept ? laid.state() : 0;
    tape = Tape{};
    tape.states = states.data();
    tape.kept_states = kept_states;
    tape.gates = {gates.data(), step * joint_gates(laid.z.kind)};
    tape.memory = {memory.data(), step};
    tape.squashed = {squashed.data(), step};
    tape.split_x = {split_x.data(), step};
    tape.split_h = {split_h.data(), step};
    tape.state_gradient = state_gradient.data();
    tape.memory_gradient = memory_gradient.data();
  }
  static int steps(const Laid &laid, bool kept) { return kept ? laid.z.steps : 1; }
};

// What a pass back is asked for beside the gradients of the weights.
struct Wishes {
  bool state = false;      // an initial state is given, and its gradient wanted
  bool last_only = false;  // the gradient comes by the last state alone
  bool d_x = true, add = false;
  bool d_c_last = false;
};

void compare_states(const Laid &laid, const Direction &direction, const Tape &tape, const check::ReferenceCell &exact,
                    int first, double tolerance) {
  const Sizes &z = laid.z;
  Numbers expected((std::size_t)z.batch * z.units);
  for (int s = first; s <= z.steps; s++) {
    for (int b = 0; b < z.batch; b++)
      for (int u = 0; u < z.units; u++) expected[b * z.units + u] = exact.state(s, b, u);
    compare(direction.state(tape, s, laid.rows), expected.data(), z.batch, laid.units, laid.panels, laid.rows, tolerance, z, "states");
  }
}

void run_back(const Laid &laid, const Direction &direction, Reel &reel, const check::ReferenceCell &exact, const Wishes &wishes,
              double tolerance, check::Random &random) {
  const Sizes &z = laid.z;
  const std::size_t step = (std::size_t)z.batch * z.units;
  Numbers d_states(step * z.steps), d_c_last(step);
  for (int t = 0; t < z.steps; t++)
    if (!wishes.last_only || t == z.place(z.steps - 1))
      for (std::size_t i = 0; i < step; i++) d_states[t * step + i] = random.within(1);
  if (wishes.d_c_last)
    for (double &x : d_c_last) x = random.within(1);
  const CellGradients expected = exact.back(d_states, d_c_last);

  Floats d_in(laid.state() * (wishes.last_only ? 1 : z.steps));
  for (int t = 0; t < z.steps; t++) {
    if (wishes.last_only && t != z.place(z.steps - 1)) continue;
    pack(d_states.data() + t * step, z.batch, laid.units, laid.rows, d_in.data() + (wishes.last_only ? 0 : t * laid.state()));
  }
  Floats d_x(wishes.d_x ? laid.x_step() * z.steps : 0, wishes.add ? 0.0f : UNSET);
  if (wishes.d_c_last) {
    std::fill(reel.memory_gradient.begin(), reel.memory_gradient.end(), 0.0f);
    pack(d_c_last.data(), z.batch, laid.units, laid.rows, reel.memory_gradient.data());
    reel.tape.memory_gradient_given = true;
  }
  Floats kernel(laid.kernel.size()), recurrent(laid.recurrent.size()), bias(laid.bias.size()), split_bias(laid.split_bias.size());
  Cancel never(nullptr);
  const bool whole = direction.backward(laid.weights, {kernel.data(), recurrent.data(), bias.data(), split_bias.data()}, reel.tape,
                                        {laid.x.data(), laid.x_step()}, {d_in.data(), laid.state()}, wishes.last_only,
                                        {wishes.d_x ? d_x.data() : nullptr, laid.x_step()}, wishes.add, laid.rows, never);
  check::that(whole, "a pass back that nobody cancels is whole");
  compare(kernel.data(), expected.kernel.data(), z.inputs, laid.gates, laid.gate_panels, laid.input_panels * PANEL, tolerance, z, "d kernel");
  compare(recurrent.data(), expected.recurrent.data(), z.units, laid.gates, laid.gate_panels, laid.panels * PANEL, tolerance, z, "d recurrent");
  compare(bias.data(), expected.bias.data(), 1, laid.gates, laid.gate_panels, 1, tolerance, z, "d bias");
  if (z.is_split()) compare(split_bias.data(), &expected.recurrent_bias[2 * z.units], 1, laid.units, laid.panels, 1, tolerance, z, "d split bias");
  for (int t = 0; wishes.d_x && t < z.steps; t++)
    compare(d_x.data() + t * laid.x_step(), expected.x.data() + (std::size_t)t * z.batch * z.inputs, z.batch, laid.inputs, laid.input_panels,
            laid.rows, tolerance, z, "d x");
  if (!wishes.state) return;
  compare(reel.state_gradient.data(), expected.h.data(), z.batch, laid.units, laid.panels, laid.rows, tolerance, z, "d h");
  if (z.has_memory()) compare(reel.memory_gradient.data(), expected.c.data(), z.batch, laid.units, laid.panels, laid.rows, tolerance, z, "d c");
}

// As float32 sums of a few hundred products, several steps deep, can be trusted.
constexpr double FLOAT = 2e-5;

void run_case(const Sizes &z, const Wishes &wishes, check::Random &random) {
  const CellInputs in = check::draw(z, wishes.state, random);
  const check::ReferenceCell exact(z, in);
  const Laid laid(z, in, z.batch);
  const auto direction = make_direction(z.kind, z.relu, z.steps, z.units, z.reverse);
  Cancel never(nullptr);
  for (const bool kept_states : {true, false}) {  // reading
    Reel reel(laid, in, false, kept_states);
    reel.tape.zero_start = !wishes.state;
    check::that(direction->forward(laid.weights, reel.tape, {laid.x.data(), laid.x_step()}, z.batch, never), "reading is whole");
    compare_states(laid, *direction, reel.tape, exact, kept_states ? 1 : z.steps, FLOAT);
  }
  Reel reel(laid, in, true, true);
  reel.tape.zero_start = !wishes.state;
  check::that(direction->forward(laid.weights, reel.tape, {laid.x.data(), laid.x_step()}, z.batch, never), "a pass forward is whole");
  compare_states(laid, *direction, reel.tape, exact, 1, FLOAT);
  run_back(laid, *direction, reel, exact, wishes, FLOAT, random);
}

void directions() {
  check::Random random(21);
  const int rounds = check::conditions().quick ? 2 : check::SANITIZED ? 4 : 12;
  for (CellKind kind : {CellKind::simple_rnn, CellKind::lstm, CellKind::gru})
    for (bool relu : {false, true})
      for (int round = 0; round < rounds; round++) {
        const Sizes z{kind, relu, random.below(2) == 1, 1 + random.below(6), random.below(20), 1 + random.below(40), 1 + random.below(70)};
        const Wishes wishes{round % 2 == 1, random.below(3) == 0, random.below(4) > 0, random.below(2) == 1, round % 4 == 1 && kind == CellKind::lstm};
        run_case(z, wishes, random);
      }
  for (CellKind kind : {CellKind::simple_rnn, CellKind::lstm, CellKind::gru}) {
    run_case({kind, false, false, 1, 1, 1, 1}, {}, random);
    run_case({kind, false, true, 3, 0, 5, 7}, {true}, random);  // no rows at all
    run_case({kind, true, false, 40, 33, 17, 16}, {}, random);  // several blocks of weight gradients
  }
}

void cancelled() {
  check::Random random(22);
  for (CellKind kind : {CellKind::simple_rnn, CellKind::lstm, CellKind::gru}) {
    const Sizes z{kind, false, false, 4, 3, 5, 6};
    const CellInputs in = check::draw(z, false, random);
    const Laid laid(z, in, z.batch);
    Reel reel(laid, in, true, true);
    std::int32_t word = 1;
    Cancel asked(&word);
    const auto direction = make_direction(kind, false, z.steps, z.units, false);
    check::that(!direction->forward(laid.weights, reel.tape, {laid.x.data(), laid.x_step()}, z.batch, asked), "a cancelled pass says so");
    check::that(asked.seen(), "who was asked to stop has seen it");
  }
}

void column_sums() {
  check::Random random(23);
  for (int round = 0; round < 60; round++) {
    const int steps = random.below(4), panels = 1 + random.below(4), rows = random.below(9);
    const std::size_t step = (std::size_t)panels * rows * PANEL;
    const Floats d = check::drawn(step * steps, 1, random), before = check::drawn(panels * PANEL, 1, random);
    Floats sums = Floats::of(before);
    add_column_sums({d.data(), (std::ptrdiff_t)step}, steps, panels, rows, sums.data());
    for (int p = 0; p < panels; p++)
      for (int i = 0; i < PANEL; i++) {
        double exact = before[p * PANEL + i];
        for (int t = 0; t < steps; t++)
          for (int m = 0; m < rows; m++) exact += d[t * step + ((std::size_t)p * rows + m) * PANEL + i];
        check::close(sums[p * PANEL + i], exact, 1e-5, [] { return std::string("sum of a column"); });
      }
  }
}

const check::Test of_directions{"directions", directions};
const check::Test of_cancel{"directions: cancelled", cancelled};
const check::Test of_sums{"directions: column sums", column_sums};

}  // namespace
