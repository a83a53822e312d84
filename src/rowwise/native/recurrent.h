// One direction of a recurrent layer: through time, and back.
//
// The equations are those of `cells.py`; gates stand in its order (LSTM i, f, g, o; GRU r, z, n). A
// step computes one panel of 16 units after the other: first the gates' sums by a product, then what
// is done element by element, while they lie in the first-level cache.
//
// All matrices are panels (gemm.h). Gate columns are regrouped by `gate_panel`, so that the gates of
// the same 16 units lie side by side. Sequences are time-major: [steps][panels][rows][16].
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <vector>

#include "gemm.h"
#include "half.h"
#include "outcome.h"

namespace rowwise {

enum class CellKind { simple_rnn = ROWWISE_SIMPLE_RNN, lstm = ROWWISE_LSTM, gru = ROWWISE_GRU };

// A number of the C interface as a cell, or whether it is ReLU and not tanh; throws Unknown.
inline CellKind cell_kind(int number) { return (CellKind)known(number, 3); }
inline bool is_relu(int activation) { return known(activation, 2, ROWWISE_RELU) == ROWWISE_RELU; }

// Whether the caller wants a pass to end early. One thread that has seen the caller's word tells the
// others, so that all of them agree at the next barrier.
class Cancel {
 public:
  explicit Cancel(const volatile std::int32_t *word) : word_(word) {}
  bool asked() {
    if (!seen() && word_ && __atomic_load_n(word_, __ATOMIC_RELAXED)) seen_.store(true, std::memory_order_relaxed);
    return seen();
  }
  bool seen() const { return seen_.load(std::memory_order_relaxed); }

 private:
  const volatile std::int32_t *word_;
  std::atomic<bool> seen_{false};
};

constexpr int joint_gates(CellKind kind) {
  return kind == CellKind::lstm ? 4 : kind == CellKind::gru ? 2 : 1;
}
constexpr int gates_of(CellKind kind) { return kind == CellKind::gru ? 3 : joint_gates(kind); }

// Where the columns of gate `gate` for the units of panel `unit_panel` lie in a weight matrix.
constexpr int gate_panel(CellKind kind, int gate, int unit_panel, int unit_panels) {
  const int joint = joint_gates(kind);
  return gate < joint ? unit_panel * joint + gate : joint * unit_panels + unit_panel;
}

// The weights in the form `pairs` of half.h, for products in bfloat16. The rows of the transposed ones
// are the joint gates' and then, from the next multiple of 32 on, the split gate's.
struct HalfWeights {
  const std::uint32_t *kernel, *recurrent;      // [G P][depth / 2][16]
  const std::uint32_t *recurrent_t, *kernel_t;  // [P or input panels][depth / 2][16]
};
// Pairs in a panel of each: half of its depth, which is a multiple of 32.
constexpr int half_depth(int columns) { return half_panels_of(columns) * HALVES / 2; }

// One direction's weights; borrowed, and not changed while a pass runs. G = gates, P = unit panels.
struct DirectionWeights {
  int inputs;               // columns of x that are used
  int input_rows;           // rows of `kernel`: the padded width of x
  const float *kernel;      // [G P][input_rows][16]
  const float *recurrent;   // [G P][16 P][16]
  const float *bias;        // [G P][16]; for the GRU's joint gates the sum of both biases
  const float *split_bias;  // [P][16]: the GRU's recurrent bias of the candidate, else null
  const float *recurrent_t; // [P][16 G P][16], for the pass back
  const float *kernel_t;    // [input_rows / 16][16 G P][16], where the gradient of x is wanted
  const HalfWeights *half = nullptr;
};

// Where a pass adds the gradients of the weights; each laid out as the weight itself.
struct DirectionGradients {
  float *kernel, *recurrent, *bias, *split_bias;
};

// A sequence in memory: step t begins at data + t * step (floats); null data: there is none.
struct Sequence {
  float *data = nullptr;
  std::ptrdiff_t step = 0;
  float *at(int t) const { return data + t * step; }
};

// The bfloat16 factors of a training, beside a Tape; `rows` is then a multiple of 32. Blocks of 32
// columns, or of 32 rows in the form `columns`. HALF_STEPS steps of gradients are kept at a time.
constexpr int HALF_STEPS = 8;
struct HalfTape {
  Half *x_rows;            // [input blocks][rows][32], of the step under way
  Half *x_columns;         // [T][rows / 32][input_rows][32], in the order of reading
  Half *h_rows;            // [2][P / 2][rows][32]
  Half *h_columns;         // [T][rows / 32][16 P][32]
  Half *d_rows;            // [2][(JOINT P) / 2][rows][32]
  Half *d_split_rows;      // [2][P / 2][rows][32]: of h U
  Half *d_split_x_rows;    // [P / 2][rows][32]: of x W, of the step under way
  std::uint32_t *d_pairs;  // [HALF_STEPS][JOINT P][rows / 2][16]
  std::uint32_t *d_split_x_pairs, *d_split_h_pairs;  // [HALF_STEPS][P][rows / 2][16]
};

// What a pass writes and the pass back reads, all owned by the caller. In training every step is
// kept; in reading, the steps of `gates` and `memory` share one place (step 0), and `states` has all
// T + 1 or takes turns between two (`kept_states`).
struct Tape {
  float *states;       // h: [T + 1 or 2][P][rows][16]; the first is the initial state
  bool kept_states;
  Sequence gates;      // [T or 1][JOINT P][rows][16]: the gates, and after the pass back the
                       // gradients of their sums
  Sequence memory;     // LSTM: c [T + 1 or 1], the first the initial one
  Sequence squashed;   // LSTM: act(c) [T or 1]
  Sequence split_x;    // GRU: the candidate n; back: the gradient of its sum x W
  Sequence split_h;    // GRU: h U of the candidate; back: the gradient of it
  float *state_gradient;  // [P][rows][16], for the pass back
  float *memory_gradient; // LSTM: [P][rows][16]
  bool zero_start = true; // the initial state is zero, so its products are left out
  const HalfTape *half = nullptr;  // products are in bfloat16
  float *ahead = nullptr;  // reading a single sequence: ahead_size() floats for the sums x W + b to come
  bool memory_gradient_given = false; // memory_gradient holds that of the last c, else it is zero
};

// One direction of a layer bound to its sizes. `rows` is the number of sequences side by side.
class Direction {
 public:
  virtual ~Direction() = default;

  // x: [steps][input panels][rows][16]. Returns false where `cancel` was seen.
  virtual bool forward(const DirectionWeights &w, const Tape &tape, Sequence x, int rows,
                       Cancel &cancel) const = 0;

  // d_states: the gradient of the states from outside, in the order of x; where `last_only`, step 0
  // of it is that of the last state alone. d_x: null, or where the gradient of x goes (added where
  // `add_to_d_x`). The tape's gates become the gradients of their sums, state_gradient and
  // memory_gradient those of the initial state (of h only where that is not zero).
  virtual bool backward(const DirectionWeights &w, const DirectionGradients &into, const Tape &tape,
                        Sequence x, Sequence d_states, bool last_only, Sequence d_x, bool add_to_d_x,
                        int rows, Cancel &cancel) const = 0;

  int steps, units;
  bool reverse;  // reads from the last step to the first

  int panels() const { return panels_of(units); }
  std::ptrdiff_t state_size(int rows) const { return (std::ptrdiff_t)panels() * rows * PANEL; }
  float *state(const Tape &tape, int s, int rows) const {
    return tape.states + (tape.kept_states ? s : s & 1) * state_size(rows);
  }
  // The place in x of the s-th step that is read.
  int place(int s) const { return reverse ? steps - 1 - s : s; }
};

// x W + b of so many steps at once, where a single sequence is read: one pass over W serves them all.
constexpr int STEPS_AHEAD = 32;
constexpr std::size_t ahead_size(CellKind kind, int units, int input_rows) {
  return (std::size_t)STEPS_AHEAD * (input_rows + 2 * gates_of(kind) * panels_of(units) * PANEL);
}

// Adds to `sums` [panels][16] the columns of `d` [panels][rows][16] over `steps` steps.
void add_column_sums(Sequence d, int steps, int panels, int rows, float *sums);

// A direction of that cell. reverse: it reads from the last step to the first.
std::unique_ptr<Direction> make_direction(CellKind kind, bool relu, int steps, int units, bool reverse);

// Where each column of a weight matrix, in the order of `cells.py`, is kept among the gate panels.
std::vector<int> gate_places(CellKind kind, int units);

}  // namespace rowwise
