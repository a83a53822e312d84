// A network in memory: its parameters as panels, its layers as nodes of a graph, and one pass of
// some pictures through them, forward and back.
//
// A pass is worked on by one or several threads, each with its own rows of the batch and its own
// Space; parameters are shared and not changed meanwhile. Values are time-major, [steps][panels]
// [rows][16], and what pads a panel is zero in every value, gradient and parameter.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "api.h"
#include "recurrent.h"
#include "threads.h"

namespace rowwise {

// Zeroed floats on a cache line's boundary. Owns them.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t count) : size_(count) {
    const std::size_t bytes = (count * sizeof(float) + LINE - 1) / LINE * LINE;
    if (bytes == 0) return;
    void *memory = std::aligned_alloc(LINE, bytes);
    if (!memory) throw std::bad_alloc();
    std::memset(memory, 0, bytes);
    data_.reset(static_cast<float *>(memory));
  }
  float *data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  void zero() { if (size_) std::memset(data_.get(), 0, size_ * sizeof(float)); }

 private:
  struct Free {
    void operator()(float *p) const { std::free(p); }
  };
  std::unique_ptr<float[], Free> data_;
  std::size_t size_ = 0;
};

// Where the features of a value stand among its panels: feature f in column place[f].
struct Layout {
  int steps = 1;
  std::vector<int> place;
  int panels = 0;

  static Layout plain(int steps, int features) {
    Layout layout{steps, std::vector<int>(features), panels_of(features)};
    for (int f = 0; f < features; f++) layout.place[f] = f;
    return layout;
  }
  int features() const { return (int)place.size(); }
  // Columns of a product that has to read this value: up to the last one in use.
  int depth() const { return place.empty() ? 0 : place.back() + 1; }
  std::ptrdiff_t step_size(int rows) const { return (std::ptrdiff_t)panels * rows * PANEL; }
  std::size_t size(int rows) const { return (std::size_t)steps * step_size(rows); }
};

// A weight matrix or vector [rows, columns] of the network, and where its elements are kept.
struct Parameter {
  std::vector<int> row_place, column_place;
  int rows = 1, panels = 0;  // as kept: [panels][rows][16]
  bool trainable = true;
  std::size_t offset = 0;  // floats, in the arena of trainable or of moving parameters

  std::size_t size() const { return (std::size_t)panels * rows * PANEL; }
  std::size_t element(int row, int column) const {
    const int c = column_place[column];
    return offset + ((std::size_t)(c / PANEL) * rows + row_place[row]) * PANEL + c % PANEL;
  }
};

// All parameters: the trainable ones side by side in `values`, moving statistics in `moving`.
struct Store {
  std::vector<Parameter> parameters;
  std::size_t size = 0, moving_size = 0;
  Buffer values, moving;

  int add(std::vector<int> row_place, int rows, std::vector<int> column_place, int panels, bool trainable) {
    Parameter p{std::move(row_place), std::move(column_place), rows, panels, trainable, 0};
    std::size_t &end = trainable ? size : moving_size;
    p.offset = end;
    end += p.size();
    parameters.push_back(std::move(p));
    return (int)parameters.size() - 1;
  }
  float *value(int index) const {
    const Parameter &p = parameters[index];
    return (p.trainable ? values : moving).data() + p.offset;
  }
  float *in(float *arena, int index) const { return arena + parameters[index].offset; }
};

// The pictures of a data set: [count][pixels], bytes (255 is full ink) or floats. Borrowed.
struct Pictures {
  const void *data;
  bool bytes;
  std::int64_t pixels;
};

enum class Mode { reading, training };

// What the products of the recurrent layers are computed in while training. Reading is in float32.
enum class Precision { float32 = 0, bfloat16 = 1 };

// In bfloat16 a thread's rows are filled up to whole blocks of 32 with rows of no effect.
constexpr int filled(int rows, Precision precision) {
  return precision == Precision::bfloat16 ? (rows + HALVES - 1) / HALVES * HALVES : rows;
}

// What all threads of one pass have in common.
struct Batch {
  const Store *store;
  Pictures pictures;
  const std::int64_t *order;  // which pictures, or null for those from `first` on
  std::int64_t first = 0;
  int size = 0;     // pictures in the batch
  Mode mode = Mode::reading;
  std::uint64_t seed = 0, step = 0;  // for dropout
  int workers = 1;
  Barrier *barrier = nullptr;
  Cancel *cancel = nullptr;
};

// What one thread keeps of one node: its value, the gradient of that, and whatever else the node
// remembers between the pass forward and the pass back.
struct Space {
  virtual ~Space() = default;
  Sequence value, gradient;
  Buffer value_memory, gradient_memory;
};

struct Pass;

// A layer in its place.
class Node {
 public:
  virtual ~Node() = default;
  Layout layout;
  std::vector<const Node *> inputs;
  int index = 0;
  bool wants_gradient = false;  // a parameter lies upstream of its value

  // The memory of one thread for up to `rows` pictures.
  virtual std::unique_ptr<Space> space(int rows, Mode mode) const = 0;
  virtual void forward(Pass &pass) const = 0;
  virtual void backward(Pass &) const {}
  // Brings what is derived from parameters up to date; part `part` of `parts`, by as many threads.
  virtual void refresh(const Store &, Mode, int /*part*/, int /*parts*/) {}
  // After all threads' gradients are summed in `gradients`, before the optimiser; one thread.
  // `apply`: moving statistics move.
  virtual void finish(Store &, float * /*gradients*/, bool /*apply*/) {}

 protected:
  // A space with memory for the value and, in training, its gradient.
  template <class S = Space>
  std::unique_ptr<S> own_space(int rows, Mode mode) const {
    auto space = std::make_unique<S>();
    space->value_memory = Buffer(layout.size(rows));
    if (mode == Mode::training && wants_gradient) space->gradient_memory = Buffer(layout.size(rows));
    return space;
  }
};

// One thread's part of a pass: pictures [first, first + pictures) of the batch, in as many rows or,
// where these are filled up, more; what fills up is zero in all gradients.
struct Pass {
  const Batch &batch;
  std::vector<std::unique_ptr<Space>> &spaces;  // one a node
  int worker, first, pictures, rows;
  float *gradients;  // this thread's arena, as long as the store's values

  template <class S = Space>
  S &at(const Node &node) const { return static_cast<S &>(*spaces[node.index]); }
  std::int64_t picture(int row) const {
    const std::int64_t i = batch.first + first + row;
    return batch.order ? batch.order[i] : i;
  }
  // Points a space's value and gradient at its own memory, for the rows of this pass.
  Space &open(const Node &node) const {
    Space &space = *spaces[node.index];
    const std::ptrdiff_t step = node.layout.step_size(rows);
    space.value = {space.value_memory.data(), step};
    space.gradient = {space.gradient_memory.data(), step};
    return space;
  }
};

// --- nodes ------------------------------------------------------------------------------------

// The picture as a reading takes it: pixel order[t * features + i] at step t, place i.
class Reading final : public Node {
 public:
  Reading(int steps, int features, const std::int32_t *order) : order_(order, order + (std::size_t)steps * features) {
    layout = Layout::plain(steps, features);
    for (std::size_t i = 0; i < order_.size(); i++) in_order_ &= order_[i] == (std::int32_t)i;
  }
  std::unique_ptr<Space> space(int rows, Mode mode) const override { return own_space(rows, mode); }

  void forward(Pass &pass) const override {
    Space &space = pass.open(*this);
    if (pass.pictures < pass.rows) std::memset(space.value.data, 0, layout.size(pass.rows) * sizeof(float));
    for (int m = 0; m < pass.pictures; m++) {
      const std::int64_t start = pass.picture(m) * pass.batch.pictures.pixels;
      if (pass.batch.pictures.bytes)
        take(static_cast<const std::uint8_t *>(pass.batch.pictures.data) + start, m, pass.rows, space.value);
      else
        take(static_cast<const float *>(pass.batch.pictures.data) + start, m, pass.rows, space.value);
    }
  }

 private:
  template <class Pixel>
  void take(const Pixel *picture, int row, int rows, Sequence to) const {
    const float unit = sizeof(Pixel) == 1 ? 255.0f : 1.0f;
    const int features = layout.features();
    const std::int32_t *order = order_.data();
    for (int t = 0; t < layout.steps; t++, order += features)
      for (int i = 0; i < features; i += PANEL) {
        float *line = to.at(t) + ((std::ptrdiff_t)(i / PANEL) * rows + row) * PANEL;
        Pixel pixels[PANEL] = {};
        const int count = std::min(PANEL, features - i);
        if (in_order_)
          std::memcpy(pixels, picture + t * features + i, count * sizeof(Pixel));
        else
          for (int j = 0; j < count; j++) pixels[j] = picture[order[i + j]];
        for (int j = 0; j < PANEL; j++) line[j] = (float)pixels[j] / unit;
      }
  }

  std::vector<std::int32_t> order_;
  bool in_order_ = true;  // pixels are taken as they lie
};

// Batch normalisation over the last axis (Ioffe & Szegedy 2015): y = γ x̂ + β.
//
// Before a recurrent layer that reads the picture, the value is x̂ itself: the layer takes γ and β
// into its weights (`folded`), and the gradients of γ and β follow from those of its weights.
class BatchNorm final : public Node {
 public:
  BatchNorm(Store &store, const Node &input, float momentum, float epsilon)
      : momentum_(momentum), epsilon_(epsilon) {
    inputs = {&input};
    layout = input.layout;
    for (int *index : {&gamma, &beta, &mean_, &variance_})
      *index = store.add({0}, 1, layout.place, layout.panels, index == &gamma || index == &beta);
    wants_gradient = true;
  }
  bool folded = false;
  int gamma, beta;

  struct Mine : Space {
    Buffer normed;          // x̂, where it is not the value itself
    Buffer sums;            // this thread's [2][panels][16]: means and squared deviations
    Buffer scales;          // all threads' [2][panels][16]: means and 1 / √(variance + ε)
  };
  // What the threads of one pass share; who reads it has waited at the barrier before. One thread
  // may be on its way back while another still reads the sums of the way forward, so each way has
  // its own.
  struct Shared {
    std::vector<const float *> sums;
    std::vector<int> counts;
    std::vector<float *> gradients;
    Buffer mean, variance, scale;
  };

  std::unique_ptr<Space> space(int rows, Mode mode) const override {
    auto space = own_space<Mine>(rows, mode);
    if (!folded && mode == Mode::training) space->normed = Buffer(layout.size(rows));
    space->sums = Buffer(2 * (std::size_t)layout.panels * PANEL);
    space->scales = Buffer(2 * (std::size_t)layout.panels * PANEL);
    return space;
  }
  void share(int workers) {
    const std::size_t width = (std::size_t)layout.panels * PANEL;
    shared_ = {std::vector<const float *>(workers), std::vector<int>(workers), std::vector<float *>(workers),
               Buffer(width), Buffer(width), Buffer(width)};
  }

  void forward(Pass &pass) const override;
  void backward(Pass &pass) const override;
  void finish(Store &store, float *gradients, bool apply) override;

 private:
  void measure(Pass &pass, Sequence x) const;
  void combine(Pass &pass, float *mean, float *variance) const;

  float momentum_, epsilon_;
  int mean_, variance_;
  mutable Shared shared_;
};

// A recurrent layer, one direction or two side by side.
class RecurrentLayer final : public Node {
 public:
  RecurrentLayer(Store &store, const Node &input, const rowwise_layer &settings, BatchNorm *norm, Precision precision);

  struct Way {  // a direction: its parameters, and what is derived from them
    std::unique_ptr<Direction> direction;
    int kernel, recurrent, bias, recurrent_bias;  // indices of parameters, -1 where there is none
    Buffer recurrent_t, kernel_t;                 // transposed, for the pass back
    Buffer folded_kernel, summed_bias;
    struct Halves {
      Buffer kernel, recurrent, recurrent_t, kernel_t;
      HalfWeights weights;
    } halves;  // for products in bfloat16
  };
  struct Mine : Space {
    struct Memory {
      Buffer states, gates, memory, squashed, split_x, split_h, state_gradient, memory_gradient;
      Buffer x_rows, x_columns, h_rows, h_columns, d_rows, d_split_rows, d_split_x_rows, d_pairs, d_split_x_pairs,
          d_split_h_pairs;
      HalfTape half;
    } memory[2];
    Tape tape[2];
  };

  std::unique_ptr<Space> space(int rows, Mode mode) const override;
  void forward(Pass &pass) const override;
  void backward(Pass &pass) const override;
  void refresh(const Store &store, Mode mode, int part, int parts) override;
  void finish(Store &store, float *gradients, bool apply) override;

 private:
  DirectionWeights weights(const Store &store, const Way &way) const;
  void lay_tape(Mine &mine, int w, int rows, Mode mode) const;
  void make_half_memory(Mine::Memory &memory, int rows) const;
  void refresh_halves(const Store &store, Way &way, int part, int parts);
  // Whether the value is the states themselves, so that nothing is copied.
  bool value_is_states() const { return sequences_ && ways_.size() == 1; }

  CellKind kind_;
  int units_;
  bool sequences_;
  BatchNorm *norm_;  // folded into the weights, or null
  Precision precision_;
  std::vector<Way> ways_;
};

// y = act(x W + b), at every step.
class Dense final : public Node {
 public:
  Dense(Store &store, const Node &input, int units, int activation);
  std::unique_ptr<Space> space(int rows, Mode mode) const override { return own_space(rows, mode); }
  void forward(Pass &pass) const override;
  void backward(Pass &pass) const override;
  void refresh(const Store &store, Mode mode, int part, int parts) override;

 private:
  int kernel_, bias_, activation_;
  Buffer kernel_t_;
};

// Zeroes a share of its inputs in training and scales the rest.
class Dropout final : public Node {
 public:
  Dropout(const Node &input, float rate) : rate_(rate) {
    inputs = {&input};
    layout = input.layout;
    wants_gradient = input.wants_gradient;
  }
  struct Mine : Space {
    Buffer factors;
  };
  std::unique_ptr<Space> space(int rows, Mode mode) const override;
  void forward(Pass &pass) const override;
  void backward(Pass &pass) const override;

 private:
  float rate_;
};

// A sequence as one long vector: the same memory, seen otherwise.
class Flatten final : public Node {
 public:
  explicit Flatten(const Node &input);
  std::unique_ptr<Space> space(int, Mode) const override { return std::make_unique<Space>(); }
  void forward(Pass &pass) const override;
};

// A sequence as its mean or its largest value over time; equal largest values share the gradient.
class Pool final : public Node {
 public:
  Pool(const Node &input, bool largest) : largest_(largest) {
    inputs = {&input};
    layout = input.layout;
    layout.steps = 1;
    wants_gradient = input.wants_gradient;
  }
  std::unique_ptr<Space> space(int rows, Mode mode) const override { return own_space(rows, mode); }
  void forward(Pass &pass) const override;
  void backward(Pass &pass) const override;

 private:
  bool largest_;
};

// Several vectors side by side.
class Join final : public Node {
 public:
  explicit Join(std::vector<const Node *> ends);
  std::unique_ptr<Space> space(int rows, Mode mode) const override { return own_space(rows, mode); }
  void forward(Pass &pass) const override;
  void backward(Pass &pass) const override;
};

// The graph with its parameters. The last node's value are the logits.
class Model {
 public:
  Model(const rowwise_layer *layers, int count, Precision precision);

  const Precision precision;
  Store store;
  std::vector<std::unique_ptr<Node>> nodes;

  int classes() const { return nodes.back()->layout.features(); }
  // Memory of one thread for up to `rows` pictures.
  std::vector<std::unique_ptr<Space>> spaces(int rows, Mode mode) const;
  void share(int workers);
  void refresh(Mode mode, int part, int parts);
  void forward(Pass &pass) const;
  void backward(Pass &pass) const;
  void finish(float *gradients, bool apply);
};

}  // namespace rowwise
