// The layers of a network that have no state: reading, dense, dropout, flatten, pool and join.
#pragma once

#include "model.h"

namespace rowwise {

// The picture as a reading takes it: pixel order[t * features + i] at step t, place i.
class Reading final : public Node {
 public:
  // order [steps * features], copied.
  Reading(int steps, int features, const std::int32_t *order);
  std::unique_ptr<Space> space(int rows, Mode mode) const override { return own_space(rows, mode); }
  void forward(Pass &pass) const override;

 private:
  template <class Pixel>
  void take(const Pixel *picture, int row, int rows, Sequence to) const;

  std::vector<std::int32_t> order_;
  bool in_order_ = true;  // pixels are taken as they lie
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
  Buffer kernel_t_;  // [input panels][16 panels][16]: transposed, for the pass back
};

// Zeroes a share of its inputs in training and scales the rest.
class Dropout final : public Node {
 public:
  Dropout(const Node &input, float rate);
  std::unique_ptr<Space> space(int rows, Mode mode) const override;
  void forward(Pass &pass) const override;
  void backward(Pass &pass) const override;

 private:
  struct Mine : Space {
    Buffer factors;  // [steps][panels][rows][16], in training: 0, or 1 / (1 - rate)
  };

  float rate_;
};

// A sequence as one long vector: the same memory, seen otherwise.
class Flatten final : public Node {
 public:
  explicit Flatten(const Node &input);
  std::unique_ptr<Space> space(int, Mode) const override { return std::make_unique<Space>(); }
  void forward(Pass &pass) const override;
};

// A sequence as its mean, its largest value over time, or both side by side, mean first; equal largest
// values share the gradient.
class Pool final : public Node {
 public:
  Pool(const Node &input, int pool);
  std::unique_ptr<Space> space(int rows, Mode mode) const override { return own_space(rows, mode); }
  void forward(Pass &pass) const override;
  void backward(Pass &pass) const override;

 private:
  bool mean_, largest_;
};

// Several vectors side by side, each from the first lane of a panel on.
class Join final : public Node {
 public:
  explicit Join(std::vector<const Node *> ends);
  std::unique_ptr<Space> space(int rows, Mode mode) const override { return own_space(rows, mode); }
  void forward(Pass &pass) const override;
  void backward(Pass &pass) const override;
};

}  // namespace rowwise
