// rowwise_recur and rowwise_recur_back against the reference in double precision.
#include <algorithm>
#include <limits>
#include <memory>
#include <thread>

#include "api.h"
#include "check.h"
#include "reference_cell.h"

using check::CellGradients;
using check::CellInputs;
using check::Floats;
using check::Numbers;
using check::Sizes;
using rowwise::CellKind;

namespace {

constexpr float UNSET = std::numeric_limits<float>::quiet_NaN();

struct Free {
  void operator()(rowwise_tape *tape) const { rowwise_tape_free(tape); }
};
typedef std::unique_ptr<rowwise_tape, Free> TapePointer;

// What a caller may leave out.
struct Wishes {
  int threads = 1;
  bool state = true, c_last = true, d_x = true, d_c_last = true;
};

void compare(const Floats &got, const Numbers &expected, const Sizes &z, const Wishes &wishes, const char *what) {
  double largest = 1e-3;
  for (double x : expected) largest = std::fmax(largest, std::fabs(x));
  for (std::size_t i = 0; i < got.size(); i++)
    check::close(got[i], expected[i], 2e-5 * largest + 1e-7, [&] {
      return check::text("%s of cell %d, %d steps, %d rows, %d inputs, %d units, %d threads, at %zu", what, (int)z.kind,
                         z.steps, z.batch, z.inputs, z.units, wishes.threads, i);
    });
}

struct Arrays {
  Floats x, kernel, recurrent, bias, recurrent_bias, h, c;
  explicit Arrays(const CellInputs &in)
      : x(Floats::of(in.x)), kernel(Floats::of(in.kernel)), recurrent(Floats::of(in.recurrent)), bias(Floats::of(in.bias)),
        recurrent_bias(Floats::of(in.recurrent_bias)), h(Floats::of(in.h)), c(Floats::of(in.c)) {}
};

void run_back(const Sizes &z, const Wishes &wishes, TapePointer &tape, const check::ReferenceCell &exact, check::Random &random) {
  const bool lstm = z.has_memory();
  Numbers d_states((std::size_t)z.steps * z.batch * z.units), d_c_last((std::size_t)z.batch * z.units);
  for (double &x : d_states) x = random.within(1);
  for (double &x : d_c_last) x = lstm && wishes.d_c_last ? random.within(1) : 0;
  const CellGradients expected = exact.back(d_states, d_c_last);
  const Floats given = Floats::of(d_states), given_c = Floats::of(d_c_last);
  const Floats d_x(wishes.d_x ? expected.x.size() : 0, UNSET), d_kernel(expected.kernel.size(), UNSET);
  const Floats d_recurrent(expected.recurrent.size(), UNSET), d_bias(z.columns(), UNSET);
  const Floats d_recurrent_bias(z.is_split() ? z.columns() : 0, UNSET);
  const Floats d_h(wishes.state ? expected.h.size() : 0, UNSET), d_c(wishes.state && lstm ? expected.c.size() : 0, UNSET);
  auto or_null = [](const Floats &array, bool wanted) { return wanted ? array.data() : nullptr; };
  const int32_t code = rowwise_recur_back(tape.get(), given.data(), or_null(given_c, lstm && wishes.d_c_last), or_null(d_x, wishes.d_x),
                                          d_kernel.data(), d_recurrent.data(), d_bias.data(), or_null(d_recurrent_bias, z.is_split()),
                                          or_null(d_h, wishes.state), or_null(d_c, wishes.state && lstm));
  check::that(code == ROWWISE_DONE, "a pass back is done");
  compare(d_x, expected.x, z, wishes, "d x");
  compare(d_kernel, expected.kernel, z, wishes, "d kernel");
  compare(d_recurrent, expected.recurrent, z, wishes, "d recurrent");
  compare(d_bias, expected.bias, z, wishes, "d bias");
  compare(d_recurrent_bias, expected.recurrent_bias, z, wishes, "d recurrent bias");
  compare(d_h, expected.h, z, wishes, "d h");
  compare(d_c, expected.c, z, wishes, "d c");
}

void run_case(const Sizes &z, const Wishes &wishes, check::Random &random) {
  const CellInputs in = check::draw(z, wishes.state, random);
  const check::ReferenceCell exact(z, in);
  const Arrays arrays(in);
  const bool lstm = z.has_memory();
  const rowwise_recurrence shape{(int)z.kind, z.relu ? ROWWISE_RELU : ROWWISE_TANH, z.reverse, wishes.threads, z.steps, z.batch, z.inputs, z.units};
  Numbers expected((std::size_t)z.steps * z.batch * z.units), expected_c((std::size_t)z.batch * z.units);
  for (int s = 0; s < z.steps; s++)
    for (int b = 0; b < z.batch; b++)
      for (int u = 0; u < z.units; u++) expected[((std::size_t)z.place(s) * z.batch + b) * z.units + u] = exact.state(s + 1, b, u);
  for (int b = 0; b < z.batch; b++)
    for (int u = 0; u < z.units; u++) expected_c[(std::size_t)b * z.units + u] = exact.memory(z.steps, b, u);
  for (const bool kept : {false, true}) {
    const Floats states(expected.size(), UNSET), c_last(lstm && wishes.c_last ? expected_c.size() : 0, UNSET);
    rowwise_tape *raw = nullptr;
    const int32_t code = rowwise_recur(&shape, arrays.x.data(), arrays.kernel.data(), arrays.recurrent.data(), arrays.bias.data(),
                                       z.is_split() ? arrays.recurrent_bias.data() : nullptr, wishes.state ? arrays.h.data() : nullptr,
                                       wishes.state && lstm ? arrays.c.data() : nullptr, states.data(),
                                       c_last.size() ? c_last.data() : nullptr, kept ? &raw : nullptr);
    TapePointer tape(raw);
    check::that(code == ROWWISE_DONE && (raw != nullptr) == kept, "a pass forward is done, and leaves a tape where one is wanted");
    compare(states, expected, z, wishes, "states");
    compare(c_last, expected_c, z, wishes, "c_last");
    if (kept) run_back(z, wishes, tape, exact, random);
  }
}

void recurrences() {
  check::Random random(41);
  const int rounds = check::conditions().quick ? 2 : check::SANITIZED ? 4 : 12;
  for (CellKind kind : {CellKind::simple_rnn, CellKind::lstm, CellKind::gru})
    for (bool relu : {false, true})
      for (int round = 0; round < rounds; round++) {
        const Sizes z{kind, relu, random.below(2) == 1, 1 + random.below(6), 1 + random.below(12), 1 + random.below(40), 1 + random.below(50)};
        run_case(z, {1 + round % 4, round % 3 > 0, round % 2 == 0, random.below(3) > 0, random.below(2) == 0}, random);
      }
  for (CellKind kind : {CellKind::simple_rnn, CellKind::lstm, CellKind::gru}) run_case({kind, false, false, 1, 1, 1, 1}, {4}, random);
}

// As Python's threads do, with the interpreter lock released.
void at_once() {
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 3; caller++)
    callers.emplace_back([caller] {
      check::Random random(50 + caller);
      for (int round = 0; round < (check::SANITIZED ? 4 : 15); round++)
        run_case({(CellKind)(round % 3), false, false, 4, 7, 9, 20}, {1 + caller}, random);
    });
  for (std::thread &caller : callers) caller.join();
}

void tape_unused() {
  check::Random random(42);
  const Sizes z{CellKind::lstm, false, false, 3, 4, 5, 6};
  const CellInputs in = check::draw(z, false, random);
  const Arrays arrays(in);
  const rowwise_recurrence shape{ROWWISE_LSTM, ROWWISE_TANH, 0, 2, z.steps, z.batch, z.inputs, z.units};
  const Floats states((std::size_t)z.steps * z.batch * z.units);
  rowwise_tape *tape = nullptr;
  rowwise_recur(&shape, arrays.x.data(), arrays.kernel.data(), arrays.recurrent.data(), arrays.bias.data(), nullptr, nullptr, nullptr,
                states.data(), nullptr, &tape);
  rowwise_tape_free(tape);
  rowwise_tape_free(nullptr);
  check::that(tape != nullptr, "a tape may be given back without a pass back");
}

const check::Test of_recurrences{"recurrences", recurrences};
const check::Test of_callers{"recurrences: at once", at_once};
const check::Test of_unused{"recurrences: unused tape", tape_unused};

}  // namespace
