// One direction of a recurrent layer on row-major arrays, for automatic differentiation elsewhere.
//
// Each thread takes some rows of the batch through all steps, so that threads meet at the end of a
// call alone. Arrays are copied into panels on the way in, and out of them on the way out.
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "buffer.h"
#include "outcome.h"
#include "recurrent.h"
#include "threads.h"

namespace rowwise::row_major {

// Where the columns of a row-major matrix lie in panels: in runs of up to 16, one a panel, from its
// first lane on.
class Columns {
 public:
  // Those of a weight matrix, as gate_places() has them.
  Columns(CellKind kind, int units) {
    for (int place : gate_places(kind, units)) {
      if (place % PANEL == 0) runs_.push_back({width_, 0, place / PANEL});
      runs_.back().count++;
      width_++;
    }
  }
  // Those of a matrix without gates lie in order, as a simple RNN's do.
  static Columns plain(int width) { return {CellKind::simple_rnn, width}; }

  // from [rows][width], to [panels][height][16], of which `rows` are filled; zero pads the lines.
  void pack(const float *from, int rows, float *to, int height) const {
    for (const Run &run : runs_)
      for (int m = 0; m < rows; m++) {
        float *line = to + ((std::ptrdiff_t)run.panel * height + m) * PANEL;
        const float *row = from + (std::ptrdiff_t)m * width_ + run.column;
        if (run.count == PANEL) {
          std::memcpy(line, row, PANEL * sizeof(float));
        } else {
          for (int i = 0; i < PANEL; i++) line[i] = i < run.count ? row[i] : 0;
        }
      }
  }
  void unpack(const float *from, int height, float *to, int rows) const {
    for (const Run &run : runs_)
      for (int m = 0; m < rows; m++) {
        const float *line = from + ((std::ptrdiff_t)run.panel * height + m) * PANEL;
        float *row = to + (std::ptrdiff_t)m * width_ + run.column;
        if (run.count == PANEL) {
          std::memcpy(row, line, PANEL * sizeof(float));
        } else {
          for (int i = 0; i < run.count; i++) row[i] = line[i];
        }
      }
  }

 private:
  struct Run {
    int column, count, panel;
  };
  int width_ = 0;
  std::vector<Run> runs_;
};

void add(const Buffer &from, const Buffer &to) {
  float *sum = to.data();
  for (std::size_t k = 0; k < from.size(); k += LANES) store(sum + k, load(sum + k) + load(from.data() + k));
}

// The row-major arrays that a pass back fills; d_x, d_h, d_c and the GRU's d_recurrent_bias or null.
struct Filled {
  float *x, *kernel, *recurrent, *bias, *recurrent_bias, *h, *c;
};

// A direction with its weights, and what its way forward leaves for the way back.
class Recurrence {
 public:
  Recurrence(const rowwise_recurrence &shape, bool kept);
  void take_weights(const float *kernel, const float *recurrent, const float *bias, const float *recurrent_bias);
  void forward(const float *x, const float *h, const float *c, float *states, float *c_last);
  void backward(const float *d_states, const float *d_c_last, const Filled &filled);

 private:
  struct Gradients {
    Buffer kernel, recurrent, bias, split_bias;
  };
  struct Part {  // one thread's rows
    int first = 0, rows = 0;
    Buffer x, states, gates, memory, squashed, split_x, split_h, state_gradient, memory_gradient;
    Gradients gradients;
    Tape tape;
  };

  int part_count() const;
  void open(Part &part, int index) const;
  void begin(const float *given, int rows, float *state) const;
  void backward(Part &part, const float *d_states, const float *d_c_last, const Filled &filled) const;
  void collect(const Filled &filled);

  CellKind kind() const { return cell_kind(shape_.cell); }
  int gate_columns() const { return gates_of(kind()) * panels_of(shape_.units) * PANEL; }
  int input_rows() const { return panels_of(shape_.inputs) * PANEL; }
  int unit_rows() const { return panels_of(shape_.units) * PANEL; }
  int joint_columns() const { return joint_gates(kind()) * shape_.units; }  // row-major: those before the split gate
  std::ptrdiff_t x_step(const Part &part) const { return (std::ptrdiff_t)input_rows() * part.rows; }
  DirectionWeights weights() const {
    return {shape_.inputs, input_rows(), kernel_.data(), recurrent_.data(), bias_.data(), split_bias_.data(),
            recurrent_t_.data(), kernel_t_.data()};
  }
  // Calls work(t, array's step t at this part's first row) for an array [steps][batch][width].
  template <class Work>
  void each_step(const Part &part, int width, const Work &work) const {
    for (int t = 0; t < shape_.steps; t++) work(t, ((std::ptrdiff_t)t * shape_.batch + part.first) * width);
  }

  rowwise_recurrence shape_;
  bool kept_;
  std::unique_ptr<Direction> direction_;
  Columns inputs_, units_, gates_;
  Buffer kernel_, recurrent_, bias_, split_bias_;
  Buffer recurrent_t_, kernel_t_;
  std::vector<Part> parts_;
};

Recurrence::Recurrence(const rowwise_recurrence &shape, bool kept)
    : shape_(shape),
      kept_(kept),
      direction_(make_direction(kind(), is_relu(shape.activation), shape.steps, shape.units, shape.reverse)),
      inputs_(Columns::plain(shape.inputs)),
      units_(Columns::plain(shape.units)),
      gates_(kind(), shape.units),
      kernel_((std::size_t)gate_columns() * input_rows()),
      recurrent_((std::size_t)gate_columns() * unit_rows()),
      bias_(gate_columns()),
      split_bias_(unit_rows()),
      parts_(part_count()) {}

int Recurrence::part_count() const {
  constexpr double WORTH = 1 << 20;  // multiplications: fewer are done before a sleeping thread has woken
  const double work = (double)shape_.steps * shape_.batch * gate_columns() * (shape_.inputs + shape_.units);
  const double most = std::min<double>(std::min(shape_.threads, shape_.batch), work / WORTH);
  return std::max(1, (int)most);
}

void Recurrence::take_weights(const float *kernel, const float *recurrent, const float *bias,
                              const float *recurrent_bias) {
  gates_.pack(kernel, shape_.inputs, kernel_.data(), input_rows());
  gates_.pack(recurrent, shape_.units, recurrent_.data(), unit_rows());
  std::vector<float> sums(bias, bias + gates_of(kind()) * shape_.units);
  if (recurrent_bias) {
    for (int j = 0; j < joint_columns(); j++) sums[j] += recurrent_bias[j];
    units_.pack(recurrent_bias + joint_columns(), 1, split_bias_.data(), 1);
  }
  gates_.pack(sums.data(), 1, bias_.data(), 1);
}

// The memory of one thread, its tape laid over it.
void Recurrence::open(Part &part, int index) const {
  const auto rows = share_of(shape_.batch, index, (int)parts_.size());
  const int steps = shape_.steps;
  part.first = rows.first;
  part.rows = rows.last - rows.first;
  const std::size_t state = direction_->state_size(part.rows), kept = kept_ ? steps : 1;
  const std::ptrdiff_t step = kept_ ? state : 0;
  const bool lstm = kind() == CellKind::lstm, gru = kind() == CellKind::gru;
  part.x = Buffer::uninitialised(x_step(part) * steps);
  part.states = Buffer::uninitialised(state * (steps + 1));
  part.gates = Buffer::uninitialised(state * joint_gates(kind()) * kept);
  if (lstm) part.memory = Buffer::uninitialised(state * (kept_ ? steps + 1 : 1));
  if (lstm) part.squashed = Buffer::uninitialised(state * kept);
  if (gru) part.split_x = Buffer::uninitialised(state * kept);
  if (gru) part.split_h = Buffer::uninitialised(state * kept);
  if (kept_) part.state_gradient = Buffer::uninitialised(state);
  if (kept_ && lstm) part.memory_gradient = Buffer::uninitialised(state);
  part.tape = Tape{part.states.data(),          true,
                   {part.gates.data(), step * joint_gates(kind())},
                   {part.memory.data(), step},  {part.squashed.data(), step},
                   {part.split_x.data(), step}, {part.split_h.data(), step},
                   part.state_gradient.data(),  part.memory_gradient.data()};
}

// The initial state: what is given, or zero.
void Recurrence::begin(const float *given, int rows, float *state) const {
  if (given)
    units_.pack(given, rows, state, rows);
  else
    std::memset(state, 0, direction_->state_size(rows) * sizeof(float));
}

void Recurrence::forward(const float *x, const float *h, const float *c, float *states, float *c_last) {
  in_parallel((int)parts_.size(), [&](int index) {
    Part &part = parts_[index];
    open(part, index);
    if (!part.rows) return;
    const std::ptrdiff_t first = (std::ptrdiff_t)part.first * shape_.units;
    each_step(part, shape_.inputs, [&](int t, std::ptrdiff_t at) {
      inputs_.pack(x + at, part.rows, part.x.data() + t * x_step(part), part.rows);
    });
    part.tape.zero_start = !h;
    begin(h ? h + first : nullptr, part.rows, part.states.data());
    if (part.tape.memory.data) begin(c ? c + first : nullptr, part.rows, part.memory.data());
    Cancel never(nullptr);
    direction_->forward(weights(), part.tape, {part.x.data(), x_step(part)}, part.rows, never);
    each_step(part, shape_.units, [&](int t, std::ptrdiff_t at) {
      const int s = direction_->place(t) + 1;  // its own inverse
      units_.unpack(direction_->state(part.tape, s, part.rows), part.rows, states + at, part.rows);
    });
    if (c_last) units_.unpack(part.tape.memory.at(shape_.steps), part.rows, c_last + first, part.rows);
  });
}

void Recurrence::backward(const float *d_states, const float *d_c_last, const Filled &filled) {
  recurrent_t_ = Buffer::uninitialised(recurrent_.size());
  transpose(recurrent_.data(), unit_rows(), gate_columns(), 0, unit_rows() / PANEL, recurrent_t_.data());
  if (filled.x) {
    kernel_t_ = Buffer::uninitialised(kernel_.size());
    transpose(kernel_.data(), input_rows(), gate_columns(), 0, input_rows() / PANEL, kernel_t_.data());
  }
  in_parallel((int)parts_.size(), [&](int index) { backward(parts_[index], d_states, d_c_last, filled); });
  collect(filled);
}

void Recurrence::backward(Part &part, const float *d_states, const float *d_c_last, const Filled &filled) const {
  const std::ptrdiff_t state = direction_->state_size(part.rows), step = x_step(part);
  const std::ptrdiff_t first = (std::ptrdiff_t)part.first * shape_.units;
  Gradients &to = part.gradients;
  to = {Buffer(kernel_.size()), Buffer(recurrent_.size()), Buffer(bias_.size()), Buffer(split_bias_.size())};
  if (!part.rows) return;
  const Buffer from_outside = Buffer::uninitialised(state * shape_.steps);
  Buffer to_x;
  if (filled.x) to_x = Buffer::uninitialised(step * shape_.steps);
  each_step(part, shape_.units, [&](int t, std::ptrdiff_t at) {
    units_.pack(d_states + at, part.rows, from_outside.data() + t * state, part.rows);
  });
  part.tape.memory_gradient_given = d_c_last != nullptr;
  if (d_c_last) units_.pack(d_c_last + first, part.rows, part.memory_gradient.data(), part.rows);
  // The gradient of a state that was zero and not given is wanted by nobody, as a rule.
  part.tape.zero_start = part.tape.zero_start && !filled.h;
  Cancel never(nullptr);
  direction_->backward(weights(), {to.kernel.data(), to.recurrent.data(), to.bias.data(), to.split_bias.data()},
                       part.tape, {part.x.data(), step}, {from_outside.data(), state}, false, {to_x.data(), step},
                       false, part.rows, never);
  if (filled.x)
    each_step(part, shape_.inputs, [&](int t, std::ptrdiff_t at) {
      inputs_.unpack(to_x.data() + t * step, part.rows, filled.x + at, part.rows);
    });
  if (filled.h) units_.unpack(part.state_gradient.data(), part.rows, filled.h + first, part.rows);
  if (filled.c) units_.unpack(part.memory_gradient.data(), part.rows, filled.c + first, part.rows);
}

// The sum of all threads' weight gradients, always added in the same order.
void Recurrence::collect(const Filled &filled) {
  Gradients &sum = parts_[0].gradients;
  for (std::size_t i = 1; i < parts_.size(); i++) {
    const Gradients &more = parts_[i].gradients;
    add(more.kernel, sum.kernel);
    add(more.recurrent, sum.recurrent);
    add(more.bias, sum.bias);
    add(more.split_bias, sum.split_bias);
  }
  gates_.unpack(sum.kernel.data(), input_rows(), filled.kernel, shape_.inputs);
  gates_.unpack(sum.recurrent.data(), unit_rows(), filled.recurrent, shape_.units);
  gates_.unpack(sum.bias.data(), 1, filled.bias, 1);
  if (filled.recurrent_bias) {
    std::memcpy(filled.recurrent_bias, filled.bias, joint_columns() * sizeof(float));
    units_.unpack(sum.split_bias.data(), 1, filled.recurrent_bias + joint_columns(), 1);
  }
}

}  // namespace rowwise::row_major

struct rowwise_tape {
  rowwise::row_major::Recurrence recurrence;
};

int32_t rowwise_recur(const rowwise_recurrence *shape, const float *x, const float *kernel, const float *recurrent,
                      const float *bias, const float *recurrent_bias, const float *h, const float *c, float *states,
                      float *c_last, rowwise_tape **tape) {
  return rowwise::outcome_of([&] {
    std::unique_ptr<rowwise_tape> made(new rowwise_tape{rowwise::row_major::Recurrence(*shape, tape != nullptr)});
    made->recurrence.take_weights(kernel, recurrent, bias, recurrent_bias);
    made->recurrence.forward(x, h, c, states, c_last);
    if (tape) *tape = made.release();
    return true;
  });
}

int32_t rowwise_recur_back(rowwise_tape *tape, const float *d_states, const float *d_c_last, float *d_x,
                           float *d_kernel, float *d_recurrent, float *d_bias, float *d_recurrent_bias, float *d_h,
                           float *d_c) {
  return rowwise::outcome_of([&] {
    tape->recurrence.backward(d_states, d_c_last, {d_x, d_kernel, d_recurrent, d_bias, d_recurrent_bias, d_h, d_c});
    return true;
  });
}

void rowwise_tape_free(rowwise_tape *tape) { delete tape; }
