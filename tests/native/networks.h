// Networks for the tests of the C interface: layers one after the other, data, and calls of the core.
#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "api.h"
#include "check.h"

namespace check {

// Layers as rowwise_new takes them. Each function adds one and returns its index.
class Sketch {
 public:
  explicit Sketch(std::string name) : name(std::move(name)) {}
  Sketch(Sketch &&) noexcept = default;  // the layers point into what it keeps
  std::string name;

  // Pixel order[t * features + i] at step t, place i; all other layers follow `input`.
  int reading(const std::vector<int> &order, int steps, int features) {
    rowwise_layer layer = plain(ROWWISE_READING, {});
    layer.order = keep(order);
    if (count() == 0) this->order = order;
    layer.steps = steps;
    layer.features = features;
    return add(layer, steps, features);
  }
  int norm(int input) {
    rowwise_layer layer = plain(ROWWISE_BATCH_NORM, {input});
    layer.momentum = 0.9f;
    layer.epsilon = 1e-3f;
    for (int i = 0; i < 4; i++) parameter(1, width(input), i == 0 ? Start::near_one : i == 3 ? Start::positive : Start::small, i < 2);
    return add(layer, steps(input), width(input));
  }
  int recurrent(int input, int cell, int units, int activation, bool sequences = false, bool both_ways = false) {
    rowwise_layer layer = plain(ROWWISE_RECURRENT, {input});
    layer.cell = cell;
    layer.units = units;
    layer.activation = activation;
    layer.sequences = sequences;
    layer.bidirectional = both_ways;
    const int columns = units * (cell == 0 ? 1 : cell == 1 ? 4 : 3);
    for (int way = 0; way <= both_ways; way++) {
      parameter(width(input), columns, Start::weight);
      parameter(units, columns, Start::weight);
      for (int biases = 0; biases <= (cell == 2); biases++) parameter(1, columns, Start::small);
    }
    return add(layer, sequences ? steps(input) : 1, units * (1 + both_ways));
  }
  int dense(int input, int units, int activation = ROWWISE_LINEAR) {
    rowwise_layer layer = plain(ROWWISE_DENSE, {input});
    layer.units = units;
    layer.activation = activation;
    parameter(width(input), units, Start::weight);
    parameter(1, units, Start::small);
    return add(layer, steps(input), units);
  }
  int dropout(int input, float rate) {
    rowwise_layer layer = plain(ROWWISE_DROPOUT, {input});
    layer.rate = rate;
    return add(layer, steps(input), width(input));
  }
  int flatten(int input) { return add(plain(ROWWISE_FLATTEN, {input}), 1, steps(input) * width(input)); }
  int pool(int input, int by) {
    rowwise_layer layer = plain(ROWWISE_POOL, {input});
    layer.pool = by;
    return add(layer, 1, width(input) * (by == ROWWISE_MEAN_MAX ? 2 : 1));
  }
  int join(const std::vector<int> &ends) {
    int features = 0;
    for (int end : ends) features += width(end);
    return add(plain(ROWWISE_JOIN, ends), 1, features);
  }

  enum class Start { weight, small, near_one, positive };
  struct Parameter {
    int rows, columns;
    Start start;
    bool trainable;
    std::size_t size() const { return (std::size_t)rows * columns; }
  };
  std::vector<Parameter> parameters;
  int steps(int layer) const { return shapes_[layer].first; }
  int width(int layer) const { return shapes_[layer].second; }
  int count() const { return (int)layers_.size(); }
  int classes() const { return width(count() - 1); }
  int last_steps() const { return steps(count() - 1); }
  Guarded<rowwise_layer> layers() const { return Guarded<rowwise_layer>::of(layers_); }
  int pixels = 0;
  std::vector<int> order;  // of the first reading

 private:
  rowwise_layer plain(int kind, const std::vector<int> &inputs) {
    rowwise_layer layer{};
    layer.kind = kind;
    layer.input_count = (int)inputs.size();
    layer.inputs = inputs.empty() ? nullptr : keep(inputs);
    return layer;
  }
  const int32_t *keep(const std::vector<int> &numbers) {
    kept_.push_back(Guarded<int32_t>::of(numbers));
    return kept_.back().data();
  }
  void parameter(int rows, int columns, Start start, bool trainable = true) { parameters.push_back({rows, columns, start, trainable}); }
  int add(const rowwise_layer &layer, int steps, int width) {
    layers_.push_back(layer);
    shapes_.push_back({steps, width});
    return count() - 1;
  }

  std::vector<rowwise_layer> layers_;
  std::vector<std::pair<int, int>> shapes_;
  std::vector<Guarded<int32_t>> kept_;
};

typedef std::vector<std::vector<float>> Parameters;

inline Parameters draw(const Sketch &sketch, std::uint64_t seed) {
  Random random(seed);
  Parameters values;
  for (const Sketch::Parameter &p : sketch.parameters) {
    std::vector<float> value(p.size());
    for (float &x : value) switch (p.start) {
        case Sketch::Start::weight: x = random.within(1.7 / std::sqrt((double)p.rows)); break;
        case Sketch::Start::small: x = random.within(0.3); break;
        case Sketch::Start::near_one: x = 1 + random.within(0.3); break;
        case Sketch::Start::positive: x = (float)(0.2 + random.uniform()); break;
      }
    values.push_back(std::move(value));
  }
  return values;
}

// A network in the core.
class Built {
 public:
  Built(const Sketch &sketch, int threads, int precision = 0) : sketch_(&sketch) {
    const Guarded<rowwise_layer> layers = sketch.layers();
    rowwise_network *made = nullptr;
    code = rowwise_new(layers.data(), sketch.count(), threads, precision, &made);
    handle_.reset(made);
  }
  explicit operator bool() const { return handle_ != nullptr; }
  int32_t code;  // of rowwise_new
  rowwise_network *handle() const { return handle_.get(); }

  void set(const Parameters &values, int slot = -1) const {
    for (std::size_t i = 0; i < values.size(); i++)
      if (slot < 0 || sketch_->parameters[i].trainable) {
        const Floats value = Floats::of(values[i]);
        that(rowwise_set(handle(), (int)i, slot, value.data()) == ROWWISE_DONE, "a parameter is set");
      }
  }
  Parameters get(int slot = -1) const {
    Parameters values;
    for (std::size_t i = 0; i < sketch_->parameters.size(); i++) {
      const Floats value(sketch_->parameters[i].size());
      if (slot < 0 || sketch_->parameters[i].trainable)
        that(rowwise_get(handle(), (int)i, slot, value.data()) == ROWWISE_DONE, "a parameter is got");
      values.emplace_back(value.begin(), value.end());
    }
    return values;
  }

 private:
  struct Free {
    void operator()(rowwise_network *network) const { rowwise_free(network); }
  };
  const Sketch *sketch_;
  std::unique_ptr<rowwise_network, Free> handle_;
};

// Pictures with labels, as bytes and as the same numbers in floats.
struct Data {
  int count, pixels;
  Guarded<uint8_t> bytes;
  Floats floats;
  Guarded<int64_t> labels;

  Data(const Sketch &sketch, int count, std::uint64_t seed)
      : count(count), pixels(sketch.pixels), bytes((std::size_t)count * pixels), floats(bytes.size()), labels(count) {
    Random random(seed);
    for (std::size_t i = 0; i < bytes.size(); i++) {
      bytes[i] = (uint8_t)random.below(256);
      floats[i] = (float)bytes[i] / 255.0f;
    }
    for (int64_t &label : labels) label = random.below(sketch.classes());
  }
  rowwise_pictures as_bytes() const { return {bytes.data(), count, pixels, 1, 0}; }
  rowwise_pictures as_floats() const { return {floats.data(), count, pixels, 0, 0}; }
};

inline rowwise_optimizer optimizer(int kind, int clip = ROWWISE_CLIP_NOT) {
  rowwise_optimizer o{};
  o.kind = kind;
  o.nesterov = kind == ROWWISE_SGD;
  o.clip = clip;
  o.clip_limit = 0.05;
  o.beta_1 = 0.9;
  o.beta_2 = 0.999;
  o.epsilon = 1e-7;
  o.weight_decay = 0.01;
  o.rho = 0.9;
  o.momentum = kind == ROWWISE_ADAM ? 0 : 0.5;
  return o;
}

// One call of rowwise_train.
struct Training {
  int batch = 8;
  rowwise_optimizer how = optimizer(ROWWISE_ADAM);
  rowwise_loss loss{0, 0.3};
  bool apply = true;
  int64_t first_step = 0;
  uint64_t seed = 0x1234567890abcdef;
  const volatile int32_t *cancel = nullptr;
  double rate = 0.01;
};
struct Trained {
  int32_t code;
  std::vector<double> losses;
  std::vector<int64_t> right;
  int64_t done;
};

inline Trained train(const Built &network, const Data &data, const std::vector<int64_t> &order, const Training &t, bool bytes = true) {
  const std::size_t steps = (order.size() + t.batch - 1) / t.batch;
  const Guarded<int64_t> places = Guarded<int64_t>::of(order), right(steps, -1);
  const Guarded<double> rates(steps, t.rate), losses(steps, -1.0);
  const Guarded<rowwise_optimizer> how(1, t.how);
  const Guarded<rowwise_loss> loss(1, t.loss);
  const rowwise_pictures pictures = bytes ? data.as_bytes() : data.as_floats();
  const Guarded<int64_t> done(1, -1);
  const int32_t code = rowwise_train(network.handle(), &pictures, data.labels.data(), places.data(), (int64_t)order.size(), t.batch, t.first_step,
                                     t.seed, rates.data(), how.data(), loss.data(), t.apply, losses.data(), right.data(), done.data(), t.cancel);
  return {code, {losses.begin(), losses.end()}, {right.begin(), right.end()}, done[0]};
}

// Probabilities [pictures][steps of the last layer][classes].
inline std::vector<float> read(const Built &network, const Sketch &sketch, const Data &data, int batch, bool bytes = true) {
  const Floats probabilities((std::size_t)data.count * sketch.last_steps() * sketch.classes(), std::nanf(""));
  const rowwise_pictures pictures = bytes ? data.as_bytes() : data.as_floats();
  that(rowwise_read(network.handle(), &pictures, batch, probabilities.data(), 1, 0, nullptr, nullptr) == ROWWISE_DONE, "pictures are read");
  return {probabilities.begin(), probabilities.end()};
}

// 0, 1, 2, ... in a drawn order.
inline std::vector<int64_t> shuffled(int count, std::uint64_t seed) {
  Random random(seed);
  std::vector<int64_t> order(count);
  for (int i = 0; i < count; i++) {
    const int j = random.below(i + 1);
    order[i] = order[j];
    order[j] = i;
  }
  return order;
}

// Networks that have every kind of layer in every place where it may stand.
std::vector<Sketch> sketches();

}  // namespace check
