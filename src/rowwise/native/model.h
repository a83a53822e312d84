// A network in memory: its parameters as panels, its layers as nodes of a graph, and one pass of
// some pictures through them, forward and back.
//
// A pass is worked on by one or several threads, each with its own rows of the batch and its own
// Space; parameters are shared and not changed meanwhile. Values are time-major, [steps][panels]
// [rows][16], and what pads a panel is zero in every value, gradient and parameter.
#pragma once

#include <memory>
#include <vector>

#include "api.h"
#include "buffer.h"
#include "recurrent.h"
#include "threads.h"

namespace rowwise {

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
    return offset + place_in_panels(rows, row_place[row], column_place[column]);
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
  Mode mode = Mode::reading;
  std::uint64_t seed = 0, step = 0;  // for dropout
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

 private:
  std::unique_ptr<Node> make_node(const rowwise_layer &layer);
};

}  // namespace rowwise
